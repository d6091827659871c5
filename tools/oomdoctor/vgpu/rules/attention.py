"""Scaled dot-product attention: which kernel the card would choose, and the buffers that kernel takes.

The choice follows torch's ``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp``: flash first, then
memory-efficient, then math; a backend that cannot take the inputs is passed over.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from oomdoctor.vgpu import costs
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.storage import ACTIVATIONS
from oomdoctor.vgpu.tensor import VirtualTensor, contiguous_strides, fresh, spec_of

FLASH, EFFICIENT, MATH = "flash", "efficient", "math"
HALF = (torch.float16, torch.bfloat16)
aten = torch.ops.aten


def choose(
    capability: tuple[int, int],
    dtype: torch.dtype,
    head: int,
    value_head: int,
    masked: bool,
    *,
    enabled: tuple[bool, bool, bool] = (True, True, True),
    dims: int = 4,
) -> str:
    """The kernel for one call. ``enabled``: flash, efficient, math as ``torch.backends.cuda`` has them."""
    flash, efficient, _ = enabled
    if dims != 4:
        return MATH
    if flash and capability >= (8, 0) and dtype in HALF and head <= 256 and head == value_head and not masked:
        return FLASH
    if efficient and capability >= (5, 0):
        align = 4 if dtype == torch.float32 else 8
        fits = head % align == 0 and value_head % align == 0
        if dtype in (*HALF, torch.float32) and fits and (dtype != torch.bfloat16 or capability >= (8, 0)):
            return EFFICIENT
    return MATH


def sdpa(
    query: VirtualTensor,
    key: VirtualTensor,
    value: VirtualTensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """``F.scaled_dot_product_attention`` on virtual tensors; shapes (batch, heads, tokens, head size)."""
    world = _world.current()
    world.ops += 1
    device = query.device
    for other in (key, value):
        if other.device != device:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {device} and "
                f"{other.device}! (when checking argument in method scaled_dot_product_attention)"
            )
    if query.dtype != key.dtype or query.dtype != value.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{query.dtype} key.dtype: {key.dtype} and value.dtype: {value.dtype} instead."
        )
    if device.type == "cpu":
        return fresh(_dense((*query.shape[:-1], value.shape[-1]), query.dtype, device))
    gpu = world.gpus[device.index]
    cuda = torch.backends.cuda
    enabled = (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled())
    kernel = choose(
        gpu.card.compute_capability,
        query.dtype,
        query.shape[-1],
        value.shape[-1],
        attn_mask is not None,
        enabled=enabled,
        dims=query.dim(),
    )
    gpu.purpose = "attention"
    try:
        out = _KERNELS[kernel](query, key, value, attn_mask, is_causal, enable_gqa)
    finally:
        gpu.purpose = ACTIVATIONS
    *batch, tokens, head = query.shape
    pairs = math.prod(batch) * tokens * key.shape[-2]
    flops = 2.0 * pairs * (head + value.shape[-1]) * (0.5 if is_causal else 1.0)
    moved = sum(t.numel() * t.element_size() for t in (query, key, value, out))
    if kernel == MATH:
        moved += 6 * pairs * 4  # the score matrix is written and read by matmul, softmax and matmul
    gpu.clock.launch(gpu.stream, costs.seconds(gpu.card, flops, query.dtype, moved))
    return out


def _dense(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Any:
    return spec_of(tuple(shape), contiguous_strides(tuple(shape)), 0, dtype, device)


def _tokens_first(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> VirtualTensor:
    """The fused kernels write (batch, tokens, heads, head size) and return the transposed view."""
    b, h, s, d = shape
    return aten.transpose.int(fresh(_dense((b, s, h, d), dtype, device)), 1, 2)


def _flash(q: Any, k: Any, v: Any, mask: Any, causal: bool, gqa: bool) -> Any:
    head = q.shape[-1]
    padded = []
    if head % 8:
        # _flash_attention pads the head to a multiple of 8: a copy of q, k and v, and the output cut back.
        width = (head + 7) // 8 * 8
        padded = [fresh(_dense((*t.shape[:-1], width), t.dtype, t.device)) for t in (q, k, v)]
    out = _tokens_first((*q.shape[:-1], v.shape[-1]), q.dtype, q.device)
    lse = fresh(_dense(tuple(q.shape[:-1]), torch.float32, q.device))
    del padded, lse
    return out


def _efficient(q: Any, k: Any, v: Any, mask: Any, causal: bool, gqa: bool) -> Any:
    extra = []
    if gqa and k.shape[1] != q.shape[1]:
        extra += [fresh(_dense((q.shape[0], q.shape[1], *t.shape[2:]), t.dtype, t.device)) for t in (k, v)]
    if mask is not None:
        if mask.dtype == torch.bool:
            # convert_boolean_attn_mask: a dense mask of 0 and -inf in the query's dtype.
            extra.append(fresh(_dense(tuple(mask.shape), q.dtype, q.device)))
        if mask.shape[-1] % 8:
            # pad_bias: the last dimension is padded to 8 elements, a copy.
            width = (mask.shape[-1] + 7) // 8 * 8
            extra.append(fresh(_dense((*mask.shape[:-1], width), q.dtype, q.device)))
    out = _tokens_first((*q.shape[:-1], v.shape[-1]), q.dtype, q.device)
    del extra
    return out


def _math(q: Any, k: Any, v: Any, mask: Any, causal: bool, gqa: bool) -> Any:
    """_scaled_dot_product_attention_math: halves are computed in fp32, the score matrix exists twice around softmax."""
    compute = torch.float32 if q.dtype in HALF else q.dtype
    scaled_q = fresh(_dense(tuple(q.shape), compute, q.device))
    scaled_k = fresh(_dense(tuple(k.shape), compute, q.device))
    wide_v = fresh(_dense(tuple(v.shape), compute, q.device)) if compute != q.dtype else v
    scores_spec = _dense((*q.shape[:-1], k.shape[-2]), compute, q.device)
    scores = fresh(scores_spec)
    if causal or (mask is not None and mask.dtype == torch.bool):
        bias = fresh(_dense(tuple(mask.shape) if mask is not None else tuple(scores.shape[-2:]), compute, q.device))
        del bias
    probabilities = fresh(scores_spec)
    del scores
    out_spec = _dense((*q.shape[:-1], v.shape[-1]), compute, q.device)
    out = fresh(out_spec)
    del probabilities, scaled_q, scaled_k, wide_v
    return out if compute == q.dtype else fresh(_dense(tuple(out.shape), q.dtype, q.device))


_KERNELS = {FLASH: _flash, EFFICIENT: _efficient, MATH: _math}
