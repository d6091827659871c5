"""What operations take beside their inputs and outputs, where their shape functions do not show it.

Read off PyTorch's own kernels by ``bench/oracle/kernels.py`` (torch 2.6 and 2.13); amounts below some ten KiB, such as
the semaphores of a reduction, are left out.
"""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.rules import Call, rule
from oomdoctor.vgpu.tensor import contiguous_strides, fresh, spec_of

aten = torch.ops.aten
INDEX = 8
SMALL_SORT = 4096
FULL_SORT_SEGMENTS = 128
CUB_BYTES = 80 << 10
"""What a radix sort keeps besides its buffers: 58 to 111 KiB were seen for 256 Ki elements, and for a million bfloat16 ones
0.2 MiB on Hopper, 1.3 MiB on older cards."""


def ordinary(call: Call) -> Any:
    """The result that the operation has without a rule."""
    from oomdoctor.vgpu import dispatch

    tensors = [t for t in (*call.args, *call.kwargs.values()) if isinstance(t, torch.Tensor)]
    unique = list({id(t): t for t in tensors}.values())
    return dispatch.ordinary(call.func, call.args, call.kwargs, unique, call.device, _world.current())


def hold(device: torch.device, *sizes: int) -> None:
    """Take buffers of these sizes together and give them back."""
    if device.type == "cuda":
        held = [fresh(spec_of((size,), contiguous_strides((size,)), 0, torch.uint8, device)) for size in sizes if size]
        del held


@rule(aten.sort.default, aten.sort.stable)
def sort(call: Call) -> Any:
    """Short rows are sorted in place beside their numbering; long ones by CUB, which wants everything twice.

    Source: aten/src/ATen/native/cuda/Sort.cpp.
    """
    result = ordinary(call)
    x = call.args[0]
    if x.device.type != "cuda" or not x.dim() or not x.numel():
        return result
    stable = call.func is aten.sort.stable
    dim = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 and not stable else -1) % x.dim()
    count, length = x.numel(), x.shape[dim]
    values, indices = count * x.element_size(), count * INDEX
    if length <= SMALL_SORT:
        hold(x.device, length * INDEX)
        return result
    aside = [] if x.stride(dim) == 1 else [values, values, indices]
    rows = count // length
    if 1 < rows < FULL_SORT_SEGMENTS:  # all rows in one sort, their numbers carried along
        buffers = [indices, indices, values, values + indices + CUB_BYTES]
    else:
        buffers = [indices, values + indices + (CUB_BYTES if rows == 1 else 0)]
    hold(x.device, *aside, *buffers)
    return result


@rule(aten.cumsum.default, aten.cumprod.default)
def scan(call: Call) -> Any:
    """A scan first casts to the type of its result (bool and small integers to int64)."""
    result = ordinary(call)
    x = call.args[0]
    if x.dtype != result.dtype:
        hold(call.device, result.numel() * result.element_size())
    return result


@rule(aten.native_layer_norm.default)
def layer_norm(call: Call) -> Any:
    """The kernel reads rows: another layout is copied first."""
    result = ordinary(call)
    x = call.args[0]
    if not x.is_contiguous():
        hold(call.device, x.numel() * x.element_size())
    return result


@rule(aten.im2col.default)
def unfold(call: Call) -> Any:
    """``F.unfold`` copies its input, contiguous or not."""
    result = ordinary(call)
    hold(call.device, call.args[0].numel() * call.args[0].element_size())
    return result
