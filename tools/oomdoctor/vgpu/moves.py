"""Moves between host and card, and into page-locked memory, in all their spellings."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu import wrappers
from oomdoctor.vgpu.allocator import OutOfCardMemory
from oomdoctor.vgpu.refusals import as_torch
from oomdoctor.vgpu.tensor import VirtualTensor, make, spec_like, wrap

aten = torch.ops.aten
CPU = torch.device("cpu")


def to(func: Any, args: Any, kwargs: Any) -> Any:
    """``Tensor.to`` in all its spellings; a no-op returns the very tensor, as torch does."""
    source = args[0]
    rest = list(args[1:])
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    non_blocking, copy = kwargs.get("non_blocking", False), kwargs.get("copy", False)
    other = kwargs.get("other")
    if rest and isinstance(rest[0], torch.Tensor):
        other = rest.pop(0)
    if other is not None:
        device, dtype = other.device, other.dtype
    elif rest and isinstance(rest[0], torch.dtype):
        dtype = rest.pop(0)
    elif rest and (rest[0] is None or isinstance(rest[0], (str, int, torch.device))) and not isinstance(rest[0], bool):
        device = rest.pop(0)
        if rest and (rest[0] is None or isinstance(rest[0], torch.dtype)):
            dtype = rest.pop(0)
    if rest:
        non_blocking = rest.pop(0)
    if rest:
        copy = rest.pop(0)
    target = source.device if device is None else _world.normal_device(device)
    if wrappers.is_wrapper(type(source)):
        if target == source.device and dtype in (None, source.dtype) and not copy:
            return source
        return wrappers.move(source, target, dtype, bool(non_blocking))
    if not isinstance(source, VirtualTensor):
        if target.type != "cuda":
            return NotImplemented
        return _move_plain(source, target, dtype, bool(non_blocking))
    if target.type == "meta":
        return torch.empty_strided(source.size(), source.stride(), dtype=dtype or source.dtype, device="meta")
    dtype = dtype or source.dtype
    memory_format = kwargs.get("memory_format")
    same_format = memory_format in (None, torch.preserve_format) or source.is_contiguous(memory_format=memory_format)
    if target == source.device and dtype == source.dtype and not copy and same_format:
        return source
    call: dict[str, Any] = {"dtype": dtype, "device": target, "non_blocking": bool(non_blocking)}
    if memory_format is not None:
        call["memory_format"] = memory_format
    return aten._to_copy.default(source, **call)


def _move_plain(source: torch.Tensor, target: torch.device, dtype: torch.dtype | None, non_blocking: bool) -> Any:
    from oomdoctor.vgpu.rules.copies import transfer

    cast = source.detach() if dtype is None or dtype == source.dtype else source.detach().to(dtype)
    try:
        out = wrap(cast, target)
    except OutOfCardMemory as error:
        raise as_torch(error) from None
    transfer(source, target, source.numel() * source.element_size(), non_blocking)
    return out.requires_grad_() if source.requires_grad and torch.is_grad_enabled() else out


def cuda(func: Any, args: Any, kwargs: Any) -> Any:
    device = args[1] if len(args) > 1 else kwargs.get("device")
    return to(
        func, (args[0], "cuda" if device is None else device), {"non_blocking": kwargs.get("non_blocking", False)}
    )


def cpu(func: Any, args: Any, kwargs: Any) -> Any:
    ours = isinstance(args[0], VirtualTensor) or wrappers.is_wrapper(type(args[0]))
    return to(func, (args[0], CPU), {}) if ours else NotImplemented


def pin(func: Any, args: Any, kwargs: Any) -> Any:
    """A plain CPU tensor becomes a virtual one in page-locked memory."""
    if isinstance(args[0], VirtualTensor):
        return NotImplemented
    with torch._C.DisableTorchFunction():
        plain = args[0].detach().contiguous()
        spec = spec_like(plain, CPU)
        value = plain.clone() if spec.keeps_values() else None
    return make(spec, _world.current().host.take(spec.nbytes, "pinned"), value)


def _is_pinned(func: Any, args: Any, kwargs: Any) -> Any:
    return NotImplemented if isinstance(args[0], VirtualTensor) else False


def _set_data(func: Any, args: Any, kwargs: Any) -> Any:
    target, new = args
    if isinstance(new, VirtualTensor) and not isinstance(target, VirtualTensor):
        with torch._C.DisableTorchFunction():
            replacement = (
                torch.nn.Parameter(new, requires_grad=target.requires_grad)
                if isinstance(target, torch.nn.Parameter)
                else new
            )
            torch.utils.swap_tensors(target, replacement)
        return None
    return NotImplemented


def _same_kind(func: Any, args: Any, kwargs: Any) -> Any:
    """May ``a.data = b`` be used: C++ would compare dispatch keys, which inference mode cannot ask of ours."""
    target, new = args
    if not isinstance(target, VirtualTensor) and not isinstance(new, VirtualTensor):
        return NotImplemented
    both = isinstance(target, VirtualTensor) and isinstance(new, VirtualTensor)
    return both and target.is_inference() == new.is_inference()


HANDLERS: dict[Any, Any] = {
    torch.Tensor.to: to,
    torch.Tensor.cuda: cuda,
    torch.Tensor.cpu: cpu,
    torch.Tensor.pin_memory: pin,
    torch.Tensor.is_pinned: _is_pinned,
    torch.Tensor.data.__set__: _set_data,
    torch._has_compatible_shallow_copy_type: _same_kind,
}
OF_WRAPPERS: dict[Any, Any] = {
    torch.Tensor.to: to,
    torch.Tensor.cuda: cuda,
    torch.Tensor.cpu: cpu,
    torch.Tensor.pin_memory: wrappers.pin,
    torch.Tensor.is_pinned: wrappers.pin,
}
