"""Which type each weight of a GGUF file has, where only the file's name is known: ``Q4_K_M`` is a mixture.

The rules are those of the converter that most image and video models on the Hub were made with (the patch to llama.cpp
in city96/ComfyUI-GGUF, ``img_tensor_get_type``): values of attention and the way down of feed-forward layers get more
bits, embeddings and last layers none less than the source had. It goes by the names of the original checkpoint; here
they are told by diffusers' names. Checked on six published peaks of Z-Image with Q8_0 and Q4_K_M files: within 3.5 %, four
of them within 0.3 %.
Other publishers mix differently; a file that is at hand tells by its header.
"""

from __future__ import annotations

import re

KEPT = "BF16"
"""What the converter leaves alone stays as the source has it."""
PRECISE = "F32"
"""What it takes to need more: modulation tables, which are added to and not multiplied with, and gates of experts."""
TOO_NARROW = "F16"
"""Rows that a type's blocks do not divide."""

_FUSED = {"Q3_K_M": "Q4_K", "Q3_K_L": "Q4_K", "Q4_K_M": "Q5_K", "Q5_K_M": "Q6_K"}
_VALUES = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "Q4_K_M": "Q6_K", "Q5_K_M": "Q6_K"}
_DOWN = {
    "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "Q4_K_S": "Q5_K", "Q4_K_M": "Q6_K", "Q5_K_M": "Q6_K", "Q4_0": "Q4_1",
    "Q5_0": "Q5_1",
}  # fmt: skip

_PRECISE = re.compile(r"(?:scale_shift_table|\.gate\.weight)$")
_QKV = re.compile(r"\.(?:to_[qkv]|add_[qkv]_proj)\.weight$")
_TO_V = re.compile(r"\.to_v\.weight$")
_WAY_DOWN = re.compile(r"(?:\.ffn?\.net\.2|\.feed_forward\.(?:w2|linear_2)|experts\..*\.w2)\.weight$")

# Class -> (layers that are left alone, whether its checkpoints hold queries, keys and values as one matrix).
_FAMILIES: dict[str, tuple[str, bool]] = {
    "Flux": (r"^(?:x_embedder|context_embedder|time_text_embed|norm_out|proj_out)\.", True),
    "Chroma": (r"^(?:x_embedder|context_embedder|distilled_guidance_layer|norm_out|proj_out)\.", True),
    "SD3": (r"^(?:pos_embed|context_embedder|time_text_embed|norm_out|proj_out)\.", True),
    "HunyuanVideo": (r"^(?:x_embedder|context_embedder|time_text_embed|norm_out|proj_out)\.", True),
    "Lumina2": (
        r"^(?:x_embedder|time_caption_embed|norm_out|context_refiner|noise_refiner)\.", True,
    ),
    "ZImage": (
        r"^(?:all_x_embedder|t_embedder|cap_embedder|all_final_layer|context_refiner|noise_refiner)\.|_pad_token$", True,
    ),
    "Wan": (r"^(?:patch_embedding|condition_embedder|proj_out)\.", False),
    "LTX": (r"^(?:proj_in|time_embed|caption_projection|proj_out)\.", False),
    "HiDream": (r"^(?:x_embedder|t_embedder|p_embedder|caption_projection|final_layer)\.", False),
}  # fmt: skip


def type_of_weight(file_type: str, class_name: str, name: str, shape: tuple[int, ...]) -> str:
    """The type (``Q6_K``, ``BF16``) of a matrix in a file of ``file_type`` (``Q4_K_M``), by diffusers' names."""
    base = base_type(file_type)
    kept, fused = next((rule for prefix, rule in _FAMILIES.items() if class_name.startswith(prefix)), ("", False))
    if kept and _PRECISE.search(name):
        return PRECISE
    if kept and re.search(kept, name):
        return KEPT
    chosen = base
    if fused and _QKV.search(name):
        chosen = _FUSED.get(file_type, base)
    elif not fused and _TO_V.search(name):
        chosen = _VALUES.get(file_type, base)
    elif _WAY_DOWN.search(name):
        # FLUX and HunyuanVideo call theirs ``mlp.2``, which the converter's rule does not name.
        chosen = base if class_name.startswith(("Flux", "Chroma", "HunyuanVideo")) else _DOWN.get(file_type, base)
    if "_K" in chosen and shape[-1] % 256:
        return TOO_NARROW
    return chosen


def base_type(file_type: str) -> str:
    """``Q4_K`` for ``Q4_K_M``; the letters of the ``IQ`` types belong to them."""
    return file_type if file_type.startswith("IQ") else re.sub(r"_[SML]$", "", file_type)
