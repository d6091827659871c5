"""Tensor subclasses that hold other tensors, such as torchao's quantised weights: they know what an operation does to them."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu.tensor import VirtualTensor

aten = torch.ops.aten


def is_wrapper(kind: type) -> bool:
    """A tensor subclass that holds other tensors, and is not one of ours."""
    return not issubclass(kind, VirtualTensor) and hasattr(kind, "__tensor_flatten__")


def move(source: Any, target: torch.device, dtype: torch.dtype | None, non_blocking: bool) -> Any:
    """Straight to the wrapper's own operator, since C++ would ask for a real card first."""
    call = {"dtype": dtype or source.dtype, "device": target, "non_blocking": non_blocking}
    return type(source).__torch_dispatch__(aten._to_copy.default, (type(source),), (source,), call)


def pin(func: Any, args: Any, kwargs: Any) -> Any:
    """A wrapper pins what it holds, and is pinned when that is."""
    op = aten._pin_memory.default if func is torch.Tensor.pin_memory else aten.is_pinned.default
    return type(args[0]).__torch_dispatch__(op, (type(args[0]),), (args[0],), {})
