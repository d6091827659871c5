"""What an operation costs a card: floating-point operations, and bytes that pass its memory.

Time is a roofline: the slower of arithmetic and memory traffic. Published peak rates are not reached; the two
efficiencies below say how much of them eager PyTorch kernels get.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from oomdoctor.vgpu.card import VirtualCard

MATMUL_EFFICIENCY = {(8, 0): 0.50, (8, 6): 0.77, (8, 9): 0.77, (9, 0): 0.47, (12, 0): 0.77}
"""Share of the dense peak that large matmuls and attention of an eager pipeline reach, by compute capability.

From published times of whole calls against the operations of the virtual ones: FLUX.1-dev 1024 px on an H100 (12 s for
50 steps, 6.6 s for 28); CogVideoX, HunyuanVideo and SD3 on an A100 (SDXL there comes out a fifth too slow); SDXL and SD3
1024 px on an RTX 4090 (3.2 s for 20 steps, 4.9 s for 28). The peak of GeForce cards is stated for accumulation in
float32, which their tensor cores do at half rate, so they come nearer to it than cards whose power is the limit. Not a
per-card figure; ``calibrate`` replaces it."""

OTHER_EFFICIENCY = 0.62
"""For architectures of which no time was found."""

MEMORY_EFFICIENCY = 0.80
"""Share of the memory bandwidth that element-wise kernels reach; STREAM-like kernels get 0.85-0.92 of it."""

_FREE = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.empty_like.default,
    torch.ops.aten.new_empty.default,
    torch.ops.aten.new_empty_strided.default,
}


def price(plan: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[torch.Tensor]) -> None:
    """Fill in the plan's FLOPs and bytes moved. Everything read once, everything written once; caches are ignored."""
    if func in _FREE:
        return
    moved = sum(t.numel() * t.element_size() for t in inputs)
    for out in plan.outputs:
        if out.spec is not None and out.how == "new":
            moved += out.spec.numel * out.spec.itemsize
    plan.bytes_moved = moved
    counter = flop_registry.get(func._overloadpacket)
    if counter is not None and plan.outputs[0].spec is not None:
        out_val = torch.empty(plan.outputs[0].spec.shape, device="meta")
        try:
            plan.flops = float(counter(*args, **kwargs, out_val=out_val))
        except (TypeError, ValueError, AssertionError):
            plan.flops = 0.0
        plan.flops_dtype = inputs[0].dtype


def rate(card: VirtualCard, dtype: torch.dtype | None) -> float:
    """Dense FLOP/s of ``card`` for ``dtype``; a type without tensor cores runs at the fp32 rate."""
    if dtype == torch.float16:
        return card.fp16_flops
    if dtype == torch.bfloat16:
        return card.bf16_flops or card.fp32_flops
    if dtype is not None and dtype.itemsize == 1 and dtype.is_floating_point:
        return card.fp8_flops or card.fp16_flops
    return card.fp32_flops


def seconds(card: VirtualCard, flops: float, dtype: torch.dtype | None, bytes_moved: int) -> float:
    """Duration of one kernel on ``card``."""
    share = card.matmul_efficiency or MATMUL_EFFICIENCY.get(card.compute_capability, OTHER_EFFICIENCY)
    arithmetic = flops / (rate(card, dtype) * share) if flops else 0.0
    memory = bytes_moved / (card.memory_bytes_per_second * MEMORY_EFFICIENCY)
    return max(arithmetic, memory)
