"""Denoising steps repeat: the third equal call of a denoiser is answered from the two before it.

A call is replayed only when two earlier calls in a row had the same argument layouts, left the card as they found it,
made the same requests in the same order and took the same time, and when no more and no less is allocated than what
calls of that kind have met: the allocator does not cut small ends off its blocks, so the same tensors weigh some KiB
more or less from step to step. What changes mid-run (an expert that takes over, guidance that ends, a cache that
skips) changes one of these, and the call runs in full again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from oomdoctor.vgpu.shapes import key_of
from oomdoctor.vgpu.tensor import Spec, VirtualTensor, fresh
from oomdoctor.vgpu.world import World


class _CannotReplay(Exception):
    """The result holds something that cannot be made again from its layout."""


@dataclass
class Record:
    """One call that ran: in which state it found and left the card, what it did, what it gave."""

    trail: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    ops: int
    seconds: float
    result: Any
    rows: tuple[int, int]
    """Range of its rows in the event trace."""

    def same_work(self, other: Record) -> bool:
        close = abs(self.seconds - other.seconds) <= 1e-6 + 1e-3 * other.seconds
        return self.trail == other.trail and self.ops == other.ops and close

    def leaves_no_trace(self) -> bool:
        """Nothing grew and nothing moved but the result itself."""
        return self.before[1:] == self.after[1:]


class Kind:
    """Calls with the same argument layouts."""

    def __init__(self) -> None:
        self.last: Record | None = None
        self.equal = 0
        """How many calls in a row did the same work, up to the last one."""
        self.least = self.most = 0
        """What was allocated when they began: the range, in bytes."""

    def add(self, record: Record) -> None:
        """One more call that ran."""
        allocated = record.before[0]
        if self.last is not None and self.last.same_work(record):
            self.equal += 1
            self.least, self.most = min(self.least, allocated), max(self.most, allocated)
        else:
            self.equal, self.least, self.most = 1, allocated, allocated
        self.last = record

    def answer(self, before: tuple[int, ...]) -> Record | None:
        """The call that may stand for one that begins in the state ``before``, if any."""
        last = self.last
        if last is None or self.equal < 2 or not last.leaves_no_trace():
            return None
        return last if last.before[1:] == before[1:] and self.least <= before[0] <= self.most else None


class Replays:
    """The memory of one run's denoiser calls."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.history: dict[int, dict[Any, Kind]] = {}
        self.ran = 0
        self.replayed = 0

    def call(self, module: torch.nn.Module, run: Any, args: Any, kwargs: Any) -> Any:
        """Run or replay one call of a denoiser."""
        world, gpu = self.world, self.world.gpu
        before = self._state()
        try:
            kind = self.history.setdefault(id(module), {}).setdefault((_key(args), _key(kwargs)), Kind())
        except TypeError:  # an unhashable argument
            return run(module, *args, **kwargs)
        if not getattr(module, "is_cache_enabled", False) and (known := kind.answer(before)) is not None:
            return self._replay(known)
        world.settle()
        start, ops, gpu.trail = world.now, world.ops, 0
        first_row = len(world.tracker.rows.module)
        result = run(module, *args, **kwargs)
        self.ran += 1
        try:
            template = _template(result, _storages(args) | _storages(kwargs))
        except _CannotReplay:
            return result
        world.settle()
        rows = (first_row, len(world.tracker.rows.module))
        seconds = world.now - start
        kind.add(Record(gpu.trail, before, self._state(), world.ops - ops, seconds, template, rows))
        return result

    def _replay(self, record: Record) -> Any:
        self.replayed += 1
        repeats = self.world.tracker.rows.repeats
        for row in range(*record.rows):
            repeats[row] += 1
        for gpu in self.world.gpus:
            gpu.clock.skip(record.seconds)
        return _rebuild(record.result)

    def _state(self) -> tuple[int, ...]:
        """Bytes: allocated on all cards, pinned, then reserved and weights of each card."""
        gpus = self.world.gpus
        state = [sum(g.allocator.allocated for g in gpus), self.world.host.by_kind["pinned"]]
        for gpu in gpus:
            state += [gpu.allocator.reserved, gpu.weights]
        return tuple(state)


def _key(x: Any) -> Any:
    if isinstance(x, dict):
        return tuple((k, _key(v)) for k, v in x.items())
    if isinstance(x, (list, tuple)):
        return tuple(_key(v) for v in x)
    if isinstance(x, VirtualTensor):
        # Where in its storage a tensor begins is left out: each step takes the next of the scheduler's timesteps.
        shape, stride, _, dtype, device = x._spec.key
        return (shape, stride, dtype, device, _mask(x))
    if isinstance(x, torch.Tensor):
        return key_of(x)
    if isinstance(x, float):
        return "float"  # a guidance scale or timestep; its value moves no memory
    return x


def _mask(x: VirtualTensor) -> bytes | None:
    """The values of a mask over tokens: denoisers cut their sequences by it, so with and without guidance differ."""
    value = x.value() if x.dim() > 1 else None
    if value is None:
        return None
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        set_ones = value != 0
        return set_ones.numpy().tobytes() if bool((value == set_ones).all()) else None


def _storages(x: Any) -> set[int]:
    if isinstance(x, VirtualTensor):
        return {id(x._storage_handle)}
    if isinstance(x, dict):
        return set().union(*map(_storages, x.values())) if x else set()
    if isinstance(x, (list, tuple)):
        return set().union(*map(_storages, x)) if x else set()
    return set()


def _template(x: Any, given: set[int]) -> Any:
    """The result with layouts in the place of tensors, so that it keeps no memory alive."""
    if isinstance(x, VirtualTensor):
        if id(x._storage_handle) in given or x._spec.offset:
            raise _CannotReplay
        return x._spec
    if x is None or isinstance(x, (int, float, str, bool)):
        return x
    if isinstance(x, dict):
        return (type(x), {k: _template(v, given) for k, v in x.items()})
    if type(x) in (list, tuple):
        return type(x)(_template(v, given) for v in x)
    raise _CannotReplay


def _rebuild(x: Any) -> Any:
    if isinstance(x, Spec):
        return fresh(x)
    if type(x) is tuple and len(x) == 2 and isinstance(x[0], type):
        return x[0](**{k: _rebuild(v) for k, v in x[1].items()})
    if type(x) in (list, tuple):
        return type(x)(_rebuild(v) for v in x)
    return x
