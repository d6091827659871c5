"""Copies: between devices, casts, and what a transfer costs."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu import costs
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.gpu import Gpu
from oomdoctor.vgpu.rules import DECLINE, Call, rule
from oomdoctor.vgpu.tensor import Spec, VirtualTensor, fresh, is_dense, spec_of

aten = torch.ops.aten


def transfer(source: torch.Tensor, target: torch.device, nbytes: int, non_blocking: bool) -> None:
    """Advance the clocks for a copy of ``nbytes`` between host and card, or between cards.

    A copy from pageable memory is staged by the driver and the host waits for it; a pinned one runs on its stream.
    """
    world = _world.current()
    cards = [d for d in (source.device, target) if d.type == "cuda"]
    if not cards:
        return
    if len(cards) == 2:
        _between(world, world.gpus[cards[0].index], world.gpus[cards[1].index], nbytes)
        return
    gpu = world.gpus[cards[-1].index]
    host_side = source if source.device.type == "cpu" else None
    pinned = host_side is not None and host_side.is_pinned() if isinstance(host_side, VirtualTensor) else False
    rate = gpu.card.pcie_bytes_per_second if pinned else gpu.card.pageable_bytes_per_second
    gpu.clock.launch(gpu.stream, nbytes / rate)
    gpu.transferred += nbytes
    if not (pinned and non_blocking):
        gpu.clock.synchronize(gpu.stream)
        if len(world.gpus) > 1:
            world.meet()


def _between(world: _world.World, source: Gpu, target: Gpu, nbytes: int) -> None:
    """A copy from card to card starts when both streams come to it, and both go on when it is done."""
    world.meet()
    seconds = nbytes / min(source.card.pcie_bytes_per_second, target.card.pcie_bytes_per_second)
    ready = max(gpu.clock.record(gpu.stream) for gpu in (source, target))
    for gpu in (source, target):
        gpu.clock.wait(gpu.stream, ready)
        gpu.clock.launch(gpu.stream, seconds)
        gpu.transferred += nbytes


@rule(aten._to_copy.default)
def to_copy(call: Call) -> Any:
    """A cast and/or a move. The result is dense; its strides follow the source when that is dense."""
    source = call.args[0]
    dtype = call.kwargs.get("dtype") or source.dtype
    memory_format = call.kwargs.get("memory_format")
    target = call.device if call.kwargs.get("device") is not None else source.device
    if call.kwargs.get("device") is not None and torch.device(call.kwargs["device"]).type == "meta":
        target = source.device
    like = torch.empty_strided(source.size(), source.stride(), dtype=source.dtype, device="meta")
    out = like.to(dtype, copy=True) if memory_format is None else like.to(dtype, copy=True, memory_format=memory_format)
    spec = spec_of(tuple(out.size()), tuple(out.stride()), 0, dtype, target)
    value = _value_of(source)
    new = fresh(spec, _cast(value, spec) if value is not None and spec.keeps_values() else None)
    if isinstance(source, VirtualTensor) and source._storage_handle.weights_of:
        new._storage_handle.mark_weights(source._storage_handle.weights_of)
    if source.device != target:
        transfer(source, target, source.numel() * source.element_size(), bool(call.kwargs.get("non_blocking")))
    elif target.type == "cuda":
        _kernel(target, spec.numel * (spec.itemsize + source.element_size()))
    return new


@rule(aten.copy_.default)
def copy_(call: Call) -> Any:
    """In place: no memory, except that a copy across devices with a cast or other strides stages a dense copy.

    Source: aten/src/ATen/native/cuda/Copy.cu (copy_requires_temporaries).
    """
    target, source = call.args[0], call.args[1]
    if not isinstance(target, VirtualTensor):
        return _fill_plain(target, source)
    value = _value_of(source)
    across = source.device != target.device
    if across and (source.dtype != target.dtype or not _same_layout(source, target)) and target.numel():
        side = target.device
        spec = spec_of(
            tuple(target.shape), tuple(torch.empty(target.shape, device="meta").stride()), 0, target.dtype, side
        )
        del_me = fresh(spec)
        del del_me
    mine = target._value
    if value is not None and mine is not None and target._storage_handle.concrete:
        mine.copy_(value)
    elif value is not None and target._spec.keeps_values() and _covers(target):
        target._value = torch.empty_strided(target.shape, target.stride(), dtype=target.dtype).copy_(value)
        target._storage_handle.concrete = True
    else:
        target._storage_handle.concrete = False
    nbytes = target.numel() * target.element_size()
    if across:
        non_blocking = bool(call.argument(2, "non_blocking", False))
        transfer(source, target.device, source.numel() * source.element_size(), non_blocking)
    elif target.device.type == "cuda":
        _kernel(target.device, 2 * nbytes)
    return target


@rule(aten._pin_memory.default)
def pin_memory(call: Call) -> Any:
    return call.args[0].pin_memory()


@rule(aten.is_pinned.default)
def is_pinned(call: Call) -> Any:
    return call.args[0].is_pinned()


@rule(aten.lift_fresh.default, aten.lift_fresh_copy.default)
def lift_fresh(call: Call) -> Any:
    return call.args[0] if isinstance(call.args[0], VirtualTensor) else DECLINE


def _kernel(device: torch.device, nbytes: int) -> None:
    gpu = _world.current().gpus[device.index]
    gpu.clock.launch(gpu.stream, costs.seconds(gpu.card, 0.0, None, nbytes))


def _value_of(t: torch.Tensor) -> torch.Tensor | None:
    if isinstance(t, VirtualTensor):
        return t.value()
    return None if t.device.type == "meta" else t.detach()


def _cast(value: torch.Tensor, spec: Spec) -> torch.Tensor:
    out = torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype)
    return out.copy_(value)


def _same_layout(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.stride() == b.stride() and is_dense(a)


def _covers(t: VirtualTensor) -> bool:
    return t._spec.offset == 0 and t._spec.nbytes == t._storage_handle.nbytes and is_dense(t)


def _fill_plain(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """A plain CPU tensor receives a virtual one: the values if there are any, else zeros."""
    value = _value_of(source)
    if value is None:
        if target.device.type != "meta":
            target.zero_()
    else:
        target.copy_(value)
    return target
