"""Operations whose result depends on data, when there is no data. Each rule errs towards more memory and says so."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.rules import DECLINE, Call, rule
from oomdoctor.vgpu.tensor import VirtualTensor, fresh, make, spec_of, wrap

aten = torch.ops.aten


def _concrete(t: Any) -> bool:
    return not isinstance(t, VirtualTensor) or t.value() is not None


def _plain(t: torch.Tensor) -> torch.Tensor:
    if isinstance(t, VirtualTensor):
        value = t.value()
        assert value is not None
        return value
    return t


@rule(aten._local_scalar_dense.default)
def item(call: Call) -> Any:
    """``.item()``: the value if known; else False, 0 or 0.0, noted. The host waits for the card."""
    t = call.args[0]
    world = _world.current()
    if t.device.type == "cuda":
        world.gpus[t.device.index].clock.synchronize(world.gpus[t.device.index].stream)
    if _concrete(t):
        return _plain(t).item()
    world.assume(f"a value computed on the card was asked for and taken as zero ({t.dtype})")
    return False if t.dtype == torch.bool else 0.0 if t.dtype.is_floating_point else 0


@rule(aten.is_nonzero.default)
def is_nonzero(call: Call) -> Any:
    return bool(item(call))


@rule(aten.equal.default)
def equal(call: Call) -> Any:
    a, b = call.args[0], call.args[1]
    if _concrete(a) and _concrete(b):
        return torch.equal(_plain(a), _plain(b))
    _world.current().assume("tensors without values were compared and taken as different")
    return False


@rule(aten.nonzero.default)
def nonzero(call: Call) -> Any:
    """Indices of non-zero elements: all of them, when nobody knows which (the most there can be)."""
    t = call.args[0]
    if _concrete(t):
        return _place(_plain(t).nonzero(), call.device)
    _world.current().assume("nonzero() of a tensor without values was taken as: every element")
    return fresh(spec_of((t.numel(), t.dim()), (t.dim() or 1, 1), 0, torch.int64, call.device))


@rule(aten.masked_select.default)
def masked_select(call: Call) -> Any:
    t, mask = call.args[0], call.args[1]
    shape = torch.broadcast_shapes(t.shape, mask.shape)
    if _concrete(mask):
        count = int(torch.broadcast_to(_plain(mask), shape).sum())
        if _concrete(t):
            return _place(torch.masked_select(_plain(t), _plain(mask)), call.device)
    else:
        count = torch.Size(shape).numel()
        _world.current().assume("masked_select with an unknown mask was taken as: everything selected")
    return fresh(spec_of((count,), (1,), 0, t.dtype, call.device))


@rule(aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
def index(call: Call) -> Any:
    """Boolean masks become index tensors first: from their values, or every element when unknown."""
    indices = call.args[1]
    if not any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices):
        return DECLINE
    flat: list[Any] = []
    for i in indices:
        if not isinstance(i, torch.Tensor) or i.dtype not in (torch.bool, torch.uint8):
            flat.append(i)
        elif _concrete(i):
            flat.extend(wrap(n, call.device) for n in _plain(i).nonzero(as_tuple=True))
        elif "put" in str(call.func):
            return call.args[0]  # a masked write: no memory beyond the mask's indices, whatever its values
        else:
            _world.current().assume("indexing with an unknown boolean mask was taken as: every element")
            one = spec_of((i.numel(),), (1,), 0, torch.int64, call.device)
            flat.extend(fresh(one) for _ in range(i.dim()))
    return call.func(call.args[0], flat, *call.args[2:], **call.kwargs)


@rule(aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default)
def unique(call: Call) -> Any:
    t = call.args[0]
    if _concrete(t):
        result = call.func(_plain(t), *call.args[1:], **call.kwargs)
        return tuple(_place(r, call.device) for r in result)
    _world.current().assume("unique() of a tensor without values was taken as: all different")
    ints = spec_of((t.numel(),), (1,), 0, torch.int64, call.device)
    return (fresh(spec_of((t.numel(),), (1,), 0, t.dtype, call.device)), fresh(ints), fresh(ints))


@rule(aten.bincount.default)
def bincount(call: Call) -> Any:
    t = call.args[0]
    if _concrete(t):
        return _place(torch.bincount(_plain(t), *call.args[1:]), call.device)
    length = int(call.argument(2, "minlength", 0)) or 1
    _world.current().assume("bincount() of a tensor without values was taken at its minimum length")
    return fresh(spec_of((length,), (1,), 0, torch.int64, call.device))


@rule(aten.repeat_interleave.Tensor)
def repeat_interleave(call: Call) -> Any:
    t = call.args[0]
    size = call.argument(1, "output_size", None) if len(call.args) > 1 else call.kwargs.get("output_size")
    if _concrete(t):
        return _place(torch.repeat_interleave(_plain(t), output_size=size), call.device)
    return fresh(spec_of((int(size) if size is not None else t.numel(),), (1,), 0, torch.int64, call.device))


@rule(aten.detach.default, aten.alias.default)
def detach(call: Call) -> Any:
    """The commonest view of all, without the detour through a meta kernel."""
    t = call.args[0]
    if not isinstance(t, VirtualTensor):
        return DECLINE
    storage = t._storage_handle
    concrete = storage.concrete
    out = make(t._spec, storage, t._value if concrete else None)
    storage.concrete = concrete
    return out


@rule(aten.allclose.default)
def allclose(call: Call) -> Any:
    return equal(call)


def _place(t: torch.Tensor, device: torch.device) -> VirtualTensor:
    return wrap(t, device)
