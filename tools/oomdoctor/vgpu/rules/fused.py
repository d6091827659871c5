"""Calls that have one kernel on a card and several operators elsewhere.

PyTorch decides between the two in C++ by the device of the tensor, which for C++ is not a card here; so they are
decided where Python calls them. Read off by ``bench/oracle/kernels.py`` (torch 2.6 and 2.13).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from oomdoctor.vgpu import costs
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.rules import function
from oomdoctor.vgpu.tensor import VirtualTensor, contiguous_strides, fresh, spec_of

aten = torch.ops.aten
FUSED_RMS_NORM_SINCE = (2, 9)
"""2.13 was seen to have the fused kernel and 2.6 not; it came in summer 2025."""


def _on_card(t: Any) -> bool:
    return isinstance(t, VirtualTensor) and t.device.type == "cuda" and t.value() is None


@function(torch.nn.functional.rms_norm, torch.rms_norm)
def rms_norm(func: Any, args: Any, kwargs: Any) -> Any:
    """One kernel that keeps a number per row, where input and weight have the same type; else several operators."""
    given = dict(zip(("input", "normalized_shape", "weight", "eps"), args, strict=False)) | kwargs
    x, weight = given["input"], given.get("weight")
    if not _on_card(x) or (weight is not None and weight.dtype != x.dtype):
        return NotImplemented
    if torch.is_grad_enabled() and (x.requires_grad or (weight is not None and weight.requires_grad)):
        return NotImplemented
    gpu = _world.current().gpus[x.device.index]
    if gpu.allocator.torch_version < FUSED_RMS_NORM_SINCE or not x.is_contiguous():
        return NotImplemented
    _world.current().ops += 1
    rows = math.prod(x.shape[: -len(given["normalized_shape"])])
    out = fresh(spec_of(tuple(x.shape), contiguous_strides(tuple(x.shape)), 0, x.dtype, x.device))
    scale = fresh(spec_of((rows,), (1,), 0, torch.float32, x.device))
    del scale
    gpu.clock.launch(gpu.stream, costs.seconds(gpu.card, 0.0, None, 2 * x.numel() * x.element_size()))
    return out


@function(torch.softmax, torch.Tensor.softmax, torch.nn.functional.softmax)
def softmax(func: Any, args: Any, kwargs: Any) -> Any:
    """From half to single precision at once; from bfloat16 the input is cast first (SoftMax.cpp)."""
    x = args[0] if args else kwargs.get("input")
    dtype = kwargs.get("dtype", args[2] if len(args) > 2 and isinstance(args[2], torch.dtype) else None)
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if not _on_card(x) or x.dtype != torch.float16 or dtype != torch.float32 or not isinstance(dim, int):
        return NotImplemented
    return aten._softmax.default(x, dim, True)
