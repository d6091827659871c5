"""Tensors made on a card, or large ones on the host: from sizes, from other tensors, from data."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import init

from oomdoctor.vgpu import moves
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.allocator import OutOfCardMemory
from oomdoctor.vgpu.refusals import as_torch
from oomdoctor.vgpu.tensor import VirtualTensor, fresh, spec_like, spec_of, wrap

aten = torch.ops.aten
CPU = torch.device("cpu")
LARGE_HOST_BYTES = 32 << 20
"""Plain CPU tensors from this size on become virtual, so that a script's big buffers are counted, not made."""

_FACTORIES = {
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint, torch.arange,
    torch.linspace, torch.logspace, torch.eye, torch.empty_strided, torch.randperm, torch.scalar_tensor,
    torch.tril_indices, torch.triu_indices, torch.empty_permuted, torch.normal,
}  # fmt: skip
_LIKE = {
    torch.empty_like, torch.zeros_like, torch.ones_like, torch.rand_like, torch.randn_like, torch.full_like,
    torch.randint_like,
}  # fmt: skip
_DRAWN = {torch.randn: torch.randn, torch.rand: torch.rand, torch.randn_like: torch.randn, torch.rand_like: torch.rand}
_FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray}
_SIZED = {
    aten.empty.memory_format, aten.zeros.default, aten.ones.default, aten.full.default, aten.randn.default,
    aten.rand.default, aten.randn.generator, aten.empty_strided.default,
}  # fmt: skip


def large_on_host(func: Any, args: Any, kwargs: Any) -> bool:
    """A factory operator that asks for a plain CPU tensor of :data:`LARGE_HOST_BYTES` or more."""
    if not args or func not in _SIZED:
        return False
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    return _numel(args[0]) * int(dtype.itemsize) >= LARGE_HOST_BYTES


def _numel(size: Any) -> int:
    n = 1
    for s in size:
        n *= int(s)
    return n


def by_operator(func: Any, args: Any, kwargs: Any, device: torch.device) -> Any:
    """A factory operator whose result lives on a virtual place: values when they are few, else shape only."""
    _world.current().ops += 1
    call = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "device")}
    shape_call = {k: v for k, v in call.items() if k != "generator"} if "generator" in call else call
    shape_func = aten.randn.default if func is aten.randn.generator else func
    plain = func is aten._to_copy.default
    meta = None if plain else shape_func(*args, **shape_call, device="meta")
    spec = spec_like(meta if meta is not None else args[0], device)
    value = None
    if plain:
        return moves.to(torch.Tensor.to, (args[0], device, kwargs.get("dtype") or args[0].dtype), {})
    if spec.keeps_values():
        value = func(*args, **call, device=CPU)
    try:
        return fresh(spec, value)
    except OutOfCardMemory as error:
        raise as_torch(error) from None


def _check_drawn(func: Any, dtype: torch.dtype | None) -> None:
    """Random numbers come in the types that torch has kernels for; for others it has words of its own."""
    if func not in _DRAWN or dtype in (None, torch.float32, torch.float16, torch.bfloat16, torch.float64):
        return
    try:
        _DRAWN[func](1, dtype=dtype)
    except NotImplementedError as error:
        raise NotImplementedError(str(error).replace("_cpu", "_cuda")) from None


def _factory(func: Any, args: Any, kwargs: Any) -> Any:
    device = kwargs.get("device")
    if device is None or (device := _world.normal_device(device)).type == "cpu":
        if not kwargs.get("pin_memory"):
            return NotImplemented
        return moves.pin(func, (func(*args, **{k: v for k, v in kwargs.items() if k != "pin_memory"}),), {})
    if device.type != "cuda":
        return NotImplemented
    call = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "device")}
    args = tuple(_scalars(a) for a in args)
    with torch._C.DisableTorchFunction():
        _check_drawn(func, call.get("dtype"))
        shape_call = {k: v for k, v in call.items() if k not in ("generator", "out")}
        meta = func(*args, **shape_call, device="meta")
        spec = spec_like(meta, device)
        value = func(*args, **call, device=CPU) if spec.keeps_values() else None
    return _fresh(spec, value, call.get("requires_grad", False))


def _like(func: Any, args: Any, kwargs: Any) -> Any:
    source = args[0]
    device = kwargs.get("device")
    if device is None:
        if not isinstance(source, VirtualTensor):
            return NotImplemented
        device = source.device
    device = _world.normal_device(device)
    small = source.numel() * (kwargs.get("dtype") or source.dtype).itemsize < LARGE_HOST_BYTES
    if device.type == "meta" or (device.type == "cpu" and not isinstance(source, VirtualTensor) and small):
        return NotImplemented
    call = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "device")}
    like = torch.empty_strided(source.size(), source.stride(), dtype=source.dtype, device="meta")
    with torch._C.DisableTorchFunction():
        _check_drawn(func, like.dtype if call.get("dtype") is None else call["dtype"])
        meta = func(like, *args[1:], **{k: v for k, v in call.items() if k != "generator"})
        spec = spec_like(meta, device)
        value = None
        if spec.keeps_values():
            plain = torch.empty_strided(source.size(), source.stride(), dtype=source.dtype)
            value = func(plain, *args[1:], **call)
    return _fresh(spec, value, call.get("requires_grad", False))


def _from_data(func: Any, args: Any, kwargs: Any) -> Any:
    source = args[0] if args else kwargs.get("data", kwargs.get("obj"))
    if type(source).__name__ == "Blank":  # whoever made one has numpy, which torch can do without
        from oomdoctor.vgpu.blank import as_tensor

        virtual = as_tensor(source)
        args, source = (args, source) if virtual is None else ((virtual, *args[1:]), virtual)
    device = kwargs.get("device")
    if device is None:
        if isinstance(source, VirtualTensor):
            dtype = kwargs.get("dtype")
            if func is torch.tensor:
                source = source.detach().clone()
            return source if dtype is None else source.to(dtype)
        if isinstance(source, (list, tuple)) and any(isinstance(s, VirtualTensor) for s in source):
            source = [_scalars(s) for s in source]
            return func(source, *args[1:], **kwargs)
        return NotImplemented
    device = _world.normal_device(device)
    if isinstance(source, torch.Tensor):
        return moves.to(torch.Tensor.to, (source, device, kwargs.get("dtype") or source.dtype), {})
    if device.type != "cuda":
        return NotImplemented
    if isinstance(source, (list, tuple)):
        source = [_scalars(s) for s in source]
    call = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "device", "data")}
    with torch._C.DisableTorchFunction():
        plain = func(source, *args[1:], **call)
    return wrap(plain, device)


def _new_factory(func: Any, args: Any, kwargs: Any) -> Any:
    """``x.new_zeros`` and its kin: like a factory on the device of ``x``."""
    source = args[0]
    device = kwargs.get("device")
    if not isinstance(source, VirtualTensor) and (device is None or _world.normal_device(device).type != "cuda"):
        return NotImplemented
    device = source.device if device is None else _world.normal_device(device)
    call = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "device")}
    call.setdefault("dtype", source.dtype)
    with torch._C.DisableTorchFunction():
        meta = func(torch.empty(0, device="meta", dtype=source.dtype), *args[1:], **call)
        spec = spec_of(tuple(meta.size()), tuple(meta.stride()), 0, meta.dtype, device)
        value = func(torch.empty(0, dtype=source.dtype), *args[1:], **call) if spec.keeps_values() else None
    return _fresh(spec, value, call.get("requires_grad", False))


def _set_item(func: Any, args: Any, kwargs: Any) -> Any:
    """``x[...] = 7``: C++ would make the number a tensor on the device that it sees, and its value would be lost."""
    target, where, value = args
    if not isinstance(target, VirtualTensor) or not isinstance(value, (bool, int, float, complex)):
        return NotImplemented
    with torch._C.DisableTorchFunction():
        plain = torch.tensor(value, dtype=target.dtype)
    return func(target, where, wrap(plain, target.device))


def _init(func: Any, args: Any, kwargs: Any) -> Any:
    """``torch.nn.init`` of a tensor on the meta device: nothing to do, and nothing is drawn from a generator."""
    tensor = args[0] if args else kwargs["tensor"]
    return tensor if tensor.is_meta and not isinstance(tensor, VirtualTensor) else NotImplemented


def _scalars(x: Any) -> Any:
    """Zero-dimensional virtual tensors are accepted where torch accepts numbers (``arange(t.max())``)."""
    return x.item() if isinstance(x, VirtualTensor) and x.dim() == 0 else x


def _fresh(spec: Any, value: torch.Tensor | None, requires_grad: bool = False) -> Any:
    try:
        out = fresh(spec, value.detach() if value is not None else None)
    except OutOfCardMemory as error:
        raise as_torch(error) from None
    return out.requires_grad_() if requires_grad else out


HANDLERS: dict[Any, Any] = {
    **dict.fromkeys(_FACTORIES, _factory),
    **dict.fromkeys(_LIKE, _like),
    **dict.fromkeys(_FROM_DATA, _from_data),
    torch.Tensor.new_empty: _new_factory,
    torch.Tensor.new_zeros: _new_factory,
    torch.Tensor.new_ones: _new_factory,
    torch.Tensor.new_full: _new_factory,
    torch.Tensor.__setitem__: _set_item,
    **dict.fromkeys((init.uniform_, init.normal_, init.constant_, init.kaiming_uniform_), _init),
}
