"""Errors that the libraries run into by themselves, not by a ``raise``: each with where it comes from in their source.

A failing cell that none of these explains counts against the virtual GPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """``technique`` and ``words`` are regular expressions, searched in the name and in the error's last line."""

    technique: str
    words: str
    why: str


REASONS = (
    Reason(
        "channels_last",
        "required rank 4 tensor to use channels_last format",
        "nn.Module.to asks for channels_last of weights with four and five dimensions; torch has it for four only, so "
        "a model with 3-D convolutions refuses.",
    ),
    Reason(
        "cache_faster",
        "tuple index out of range|not enough values to unpack|Number of dimensions of tensors must match|"
        "number of dimensions in the tensor input does not match|"
        "Sizes of tensors must match",
        "FasterCache takes latents of four or five dimensions, with the guided half in the same batch; these models "
        "get tokens of three dimensions, or one call per half (diffusers/hooks/faster_cache.py, 'Support BSC').",
    ),
    Reason(
        "cache_first_block",
        "unsupported operand type\\(s\\) for -: '(VirtualTensor|Tensor)' and 'list'",
        "FirstBlockCache subtracts what the first block gave from what the last one gives; FLUX.2's first blocks give "
        "two tensors and its last ones a single one (first_block_cache.py; a tiny model fails alike on a CPU).",
    ),
    Reason(
        "attention_xformers",
        "expanded size of the tensor|has no attribute 'spatial_norm'|not enough values to unpack|"
        "Attempting to broadcast a dimension|number of sizes provided \\(3\\) must be greater or equal",
        "the pipeline's switch puts xFormers' processor for UNets in place of the model's own, which has other inputs "
        "and outputs (attention_processor.py); these models take set_attention_backend('xformers').",
    ),
    Reason(
        "fuse_qkv",
        "Sizes of tensors must match except in dimension 0",
        "fuse_projections joins the weights of queries, keys and values of every attention layer; those between two "
        "kinds of tokens read inputs of two widths.",
    ),
    Reason(
        "fuse_qkv",
        "'Kandinsky5Attention' object has no attribute 'to_q'",
        "fuse_projections looks for to_q, to_k and to_v; Kandinsky 5 calls them to_query, to_key and to_value "
        "(transformer_kandinsky.py).",
    ),
    Reason(
        "fuse_qkv",
        "'NoneType' object has no attribute 'ndim'",
        "SD3.5-medium has layers in which pictures attend to themselves only; the processor for joined weights reads a "
        "text that is not there (attention_processor.py, FusedJointAttnProcessor2_0).",
    ),
    Reason(
        "fp8_casting|bnb_nf4|bnb_int8",
        "query, key, and value to have the same dtype|could not infer output dtype. Input dtype must be",
        "the layer that takes in Kandinsky's picture embedding converts it to the type its weights are stored in "
        "(embeddings.py, ImageProjection).",
    ),
    Reason(
        "gguf",
        "Attempting to broadcast a dimension of length 576 at -1",
        "a converter packs the upscaler's table of noise levels with the other matrices, and diffusers unpacks linear "
        "layers only (quantizers/gguf/utils.py).",
    ),
    Reason(
        "attention_flex",
        "CUDA out of memory",
        "without torch.compile flex_attention writes out the scores of all pairs of tokens; a video has more than any "
        "card holds.",
    ),
    Reason(
        "group_block",
        "Expected all tensors to be on the same device",
        "block-level offloading hangs its hooks on the children of a list; StableCascadeUNet's are lists themselves and "
        "are never called, so their weights stay where they are (group_offloading.py).",
    ),
    Reason(
        "fp8_casting|bnb_nf4|bnb_int8|gguf|quanto",
        r"normal_kernel_cuda\" not implemented for '(Float8_e4m3fn|Byte|Char)'",
        "the pipeline draws its noise in the type that the denoiser's weights are stored in "
        "(pipeline_stable_cascade_prior.py), and torch draws none in 8 bits.",
    ),
    Reason(
        "group_.*",
        r"Input type \(float\) and bias type \(c10::(BFloat16|Half)\) should be the same",
        "the pipeline converts the VAE to float32 for pictures that come in (force_upcast); the hooks of group "
        "offloading keep the weights in the old type, page-locked or on disk, and bring those back.",
    ),
)


def reason(technique: str, words: str) -> Reason | None:
    """What explains the error of a cell."""
    return next((r for r in REASONS if re.fullmatch(r.technique, technique) and re.search(r.words, words)), None)
