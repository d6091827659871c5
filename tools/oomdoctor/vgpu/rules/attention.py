"""Scaled dot-product attention: the buffers that each kernel takes, request by request.

The sequences are PyTorch's own: ``bench/oracle/kernels.py`` runs the kernels of torch 2.6 and 2.13 over a stub driver and
reads off every allocation; both versions ask for the same. cuDNN does not run there: its rule is from the source
(``aten/src/ATen/native/cudnn/MHA.cpp``), without the workspace that its plans may ask for.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from oomdoctor.vgpu import costs
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.attention_choice import CUDNN, EFFICIENT, FLASH, HALF, MATH, Attention, Backends, choose
from oomdoctor.vgpu.storage import ACTIVATIONS
from oomdoctor.vgpu.tensor import VirtualTensor, contiguous_strides, fresh, spec_of

aten = torch.ops.aten
RANDOM_STATE_SINCE = (2, 7)


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
    kernel = choose(
        Attention(
            query.shape,
            key.shape,
            value.shape,
            query.dtype,
            None if attn_mask is None else attn_mask.shape,
            is_causal,
            enable_gqa,
            all(t.stride(-1) == 1 or t.shape[-1] == 1 for t in (query, key, value)),
        ),
        gpu.card.compute_capability,
        gpu.allocator.torch_version,
        _enabled(),
    )
    return attend(kernel, query, key, value, attn_mask, is_causal, enable_gqa)


def attend(
    kernel: str,
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    causal: bool = False,
    grouped: bool = False,
    speed: float = 1.0,
) -> Any:
    """One kernel's buffers and time; shapes (batch, heads, tokens, head size).

    ``speed``: how many times faster than in the query's type the products are (8-bit kernels).
    """
    gpu = _world.current().gpus[query.device.index]
    gpu.purpose = "attention"
    try:
        out = _KERNELS[kernel](query, key, value, mask, causal, grouped)
    finally:
        gpu.purpose = ACTIVATIONS
    *batch, tokens, head = query.shape
    pairs = math.prod(batch) * tokens * key.shape[-2]
    flops = 2.0 * pairs * (head + value.shape[-1]) * (0.5 if causal else 1.0) / speed
    moved = sum(t.numel() * t.element_size() for t in (query, key, value, out))
    if kernel == MATH:
        moved += 6 * pairs * 4  # the score matrix is written and read by matmul, softmax and matmul
    gpu.clock.launch(gpu.stream, costs.seconds(gpu.card, flops, query.dtype, moved))
    return out


def _dense(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Any:
    return spec_of(tuple(shape), contiguous_strides(tuple(shape)), 0, dtype, device)


def _enabled() -> Backends:
    cuda = torch.backends.cuda
    return Backends(
        cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled(), cuda.cudnn_sdp_enabled()
    )


def _take(shape: Any, dtype: torch.dtype, device: torch.device) -> VirtualTensor:
    return fresh(_dense(tuple(shape), dtype, device))


def _tokens_first(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> VirtualTensor:
    """The fused kernels write (batch, tokens, heads, head size) and return the transposed view."""
    b, h, s, d = shape
    return aten.transpose.int(fresh(_dense((b, s, h, d), dtype, device)), 1, 2)


def _additive(mask: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A mask as it is added to the scores: a boolean one becomes 0 and -inf in the query's type."""
    return _take(mask.shape, dtype, device) if mask is not None and mask.dtype == torch.bool else mask


def _flash(q: Any, k: Any, v: Any, mask: Any, causal: bool, gqa: bool) -> Any:
    head = q.shape[-1]
    width = (head + 7) // 8 * 8
    padded = [_take((*t.shape[:-1], width), t.dtype, t.device) for t in (q, k, v)] if width != head else []
    out = _tokens_first((*q.shape[:-1], width), q.dtype, q.device)
    lse = _take(q.shape[:-1], torch.float32, q.device)
    splits = _flash_splits(q, k, width)
    parts = []
    if splits > 1:
        parts.append(_take((splits, *q.shape[:-1]), torch.float32, q.device))
        rounded = width if width <= 32 else (width + 31) // 32 * 32
        parts.append(_take((splits, *q.shape[:-1], rounded), torch.float32, q.device))
    # The state of the random numbers, asked for whether or not there is dropout (seen in 2.13, not in 2.6).
    state = []
    if _world.current().gpus[q.device.index].allocator.torch_version >= RANDOM_STATE_SINCE:
        state = [_take((2,), torch.int64, q.device), _take((), torch.int64, q.device)]
    del padded, lse, parts, state
    return out if width == head else aten.slice.Tensor(out, 3, 0, head)


def _flash_splits(q: Any, k: Any, width: int) -> int:
    """Into how many parts the keys are split when there are too few query blocks to fill the card.

    Source: ``num_splits_heuristic`` of flash_attn/flash_api.cpp, with twice the number of multiprocessors.
    """
    key_block = 256 if width <= 64 else 128 if width <= 128 else 64
    blocks = q.shape[0] * q.shape[1] * math.ceil(q.shape[2] / 64)
    room = 2 * _world.current().gpus[q.device.index].card.sm_count
    if blocks >= 0.8 * room:
        return 1
    key_blocks = math.ceil(k.shape[2] / key_block)
    efficiency = {}
    for splits in range(1, min(128, room, key_blocks) + 1):
        if splits == 1 or math.ceil(key_blocks / splits) != math.ceil(key_blocks / (splits - 1)):
            waves = blocks * splits / room
            efficiency[splits] = waves / math.ceil(waves)
    best = max(efficiency.values())
    return next(splits for splits, share in efficiency.items() if share >= 0.85 * best)


def _efficient(q: Any, k: Any, v: Any, mask: Any, causal: bool, gqa: bool) -> Any:
    bias = _additive(mask, q.dtype, q.device)
    if bias is not None and (bias.stride(-1) != 1 or any(step % 8 for step in bias.stride()[:-1])):
        # pad_bias: the kernel reads rows of the mask in steps of eight elements; it is copied with the padding.
        width = (bias.shape[-1] + 7) // 8 * 8
        bias = _take((*bias.shape[:-1], width), bias.dtype, q.device)
    out = _tokens_first((*q.shape[:-1], v.shape[-1]), q.dtype, q.device)
    accumulator = None
    if q.dtype in HALF and v.shape[-1] > 128:
        accumulator = _take(out.shape, torch.float32, q.device)
    del bias, accumulator
    return out


def _cudnn(q: Any, k: Any, v: Any, mask: Any, causal: bool, gqa: bool) -> Any:
    bias = _additive(mask, q.dtype, q.device)
    out = _tokens_first((*q.shape[:-1], v.shape[-1]), q.dtype, q.device)
    del bias
    return out


def _math(q: Any, k: Any, v: Any, mask: Any, causal: bool, gqa: bool) -> Any:
    """_scaled_dot_product_attention_math: halves are computed in fp32, the scores exist twice around softmax.

    Beside them a byte per score says where a row has nothing to attend to (``_safe_softmax``), and the
    probabilities are cast back to the type of the query for a result that nobody takes.
    """
    device, compute = q.device, torch.float32 if q.dtype in HALF else q.dtype
    bias = _additive(mask, q.dtype, device)
    wide = [_take(t.shape, compute, device) for t in (q, k, v)] if compute != q.dtype else [q, k, v]
    if gqa and k.shape[-3] != q.shape[-3]:
        wide += [_take((*q.shape[:-2], *t.shape[-2:]), compute, device) for t in (k, v)]
    scaled_q = _take(q.shape, compute, device)
    if causal:
        ones = _take((q.shape[-2], k.shape[-2]), torch.bool, device)
        lower = _take((q.shape[-2], k.shape[-2]), torch.bool, device)
        del ones
        bias = _take((q.shape[-2], k.shape[-2]), compute, device)
        del lower
    keys = (*q.shape[:-2], *k.shape[-2:])
    scaled_k = _take(keys, compute, device)
    # A batched product reads its batch as one dimension; what cannot be seen that way is copied.
    copies = [_take(keys, compute, device) for t in (q, k) if not _batch_is_flat(t)]
    scores = _take((*q.shape[:-1], k.shape[-2]), compute, device)
    del copies, scaled_k
    probabilities = _take(scores.shape, compute, device)
    masked = _take(scores.shape, torch.bool, device)
    rows = _take(scores.shape[:-1], torch.bool, device)
    zero = _take((), compute, device)
    del zero, rows, masked, scores
    cast_back = _take(probabilities.shape, q.dtype, device) if compute != q.dtype else None
    out = _take((*q.shape[:-1], v.shape[-1]), compute, device)
    copy = None if _batch_is_flat(v) else _take((*q.shape[:-2], *v.shape[-2:]), compute, device)
    del copy
    result = _take(out.shape, q.dtype, device) if compute != q.dtype else out
    del out, probabilities, scaled_q, wide, cast_back, bias
    return result


def _batch_is_flat(t: Any) -> bool:
    """Whether all dimensions but the last two can be viewed as one."""
    stride, shape = t.stride(), t.shape
    return all(
        shape[i] == 1 or stride[i - 1] == stride[i] * shape[i] or shape[i - 1] == 1 for i in range(1, len(shape) - 2)
    )


_KERNELS = {FLASH: _flash, EFFICIENT: _efficient, MATH: _math, CUDNN: _cudnn}
