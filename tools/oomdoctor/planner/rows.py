"""The rows of a trace as plain columns, with repeated identical forwards of a component laid over each other.

A run executes a few steps of the denoiser and replays the others; the executed ones enter the same modules in the same
order, and so do the portions in which a video VAE decodes. For peaks only the highest of them counts and for time their
sum, so they are one forward to the digest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice
from operator import is_not, mul, sub
from typing import TypeVar

from oomdoctor.errors import InputError
from oomdoctor.values import Stage, Trace

_LONGEST_ROUND = 4
"""So many forwards of one component may take turns, over and over, and still be laid over each other."""

_T = TypeVar("_T")
Span = tuple[int, int]
"""Row of entering, row after leaving."""


@dataclass
class Columns:
    """Equally long columns; ``seconds`` are of all repeats together."""

    module: list[int]
    entered: list[bool]
    stage: list[Stage]
    live: list[int]
    peak: list[int]
    seconds: list[float]
    repeats: list[int]
    reserved: list[int]
    arena: list[int]
    launches: list[int]
    first: list[int]
    """Repeats of the first of the forwards that were laid over each other."""

    def __len__(self) -> int:
        return len(self.module)


def columns(trace: Trace) -> Columns:
    """The columns of the call, merged. What comes before the first module (loading, placing) carries no time and no peak.

    Raises :class:`InputError` for columns of different length and for modules that are not listed.
    """
    _check(trace)
    groups = _groups(trace)
    kept = _Kept([span for group in groups for span, _ in group.later], len(trace.module))
    nothing = (0,) * len(trace.module)
    reserved, arena = trace.reserved_bytes or nothing, trace.arena_bytes or nothing
    repeats = kept.cut(trace.repeats)
    live = kept.cut(trace.live_bytes)
    out = Columns(
        module=kept.cut(trace.module),
        entered=kept.cut(trace.entered),
        stage=kept.cut(trace.stage),
        live=live,
        peak=list(map(max, kept.cut(trace.peak_bytes), live)),
        seconds=list(map(mul, kept.cut(trace.seconds), repeats)),
        repeats=repeats,
        reserved=kept.cut(reserved),
        arena=kept.cut(arena),
        launches=kept.cut(trace.launches or nothing),
        first=list(repeats),
    )
    if out.peak:
        out.peak[0], out.seconds[0] = live[0], 0.0
    repeated = [group for group in groups if group.later]
    for group in repeated:
        at = kept.place(group.first[0])
        assert at is not None
        _lay_over(out, trace, (reserved, arena), group, at)
    for group in repeated:
        _put_after(out, trace, (reserved, arena), group, kept)
    return out


def reused_caches(trace: Trace) -> dict[Stage, int]:
    """By stage: bytes of what earlier stages left in the allocator's cache that it is sure to have used.

    What is alive at a moment and was not newly reserved since the stage began must have come from the cache.
    """
    out: dict[Stage, int] = {}
    reserved = trace.reserved_bytes
    if not reserved:
        return out
    changes = list(map(is_not, trace.stage, islice(trace.stage, 1, None)))
    start, count = 0, len(trace.stage)
    while start < count:
        try:
            stop = changes.index(True, start) + 1
        except ValueError:
            stop = count
        stage = trace.stage[start]
        if start and stage not in out:
            grown = map(sub, trace.peak_bytes[start:stop], reserved[start:stop])
            out[stage] = max(0, max(grown) + reserved[start - 1])
        start = stop
    return out


@dataclass
class _Group:
    """An outermost forward and the later ones that are like it."""

    first: Span
    component: str
    later: list[tuple[Span, _Group]] = field(default_factory=list)
    """Each with the group of the forward just before it."""


def _groups(trace: Trace) -> list[_Group]:
    """All outermost forwards; one that is like the one before it, or like the one a round of the same component ago
    when nothing new came in between, belongs to that one's group."""
    out: list[_Group] = []
    recent: list[_Group] = []
    """Of the running component, the groups of the last forwards."""
    for span in _spans(trace):
        component = trace.modules[trace.module[span[0]]].component
        if recent and recent[-1].component != component:
            recent = []
        like = next((g for g in reversed(recent[-_LONGEST_ROUND:]) if _alike(trace, g.first, span)), None)
        if like is None:
            like = _Group(span, component)
            out.append(like)
        else:
            like.later.append((span, recent[-1]))
        recent.append(like)
    return out


def _spans(trace: Trace) -> list[Span]:
    """Outermost forwards."""
    out: list[Span] = []
    at, count = 0, len(trace.module)
    module, entered = trace.module, trace.entered
    while at < count:
        if not entered[at]:
            at += 1
            continue
        try:
            end = module.index(module[at], at + 1)
        except ValueError:
            return out
        if entered[end]:
            return out
        out.append((at, end + 1))
        at = end + 1
    return out


def _alike(trace: Trace, a: Span, b: Span) -> bool:
    """The same modules in the same order and stage. The entering row may come from another stage."""
    if a[1] - a[0] != b[1] - b[0] or trace.module[a[0]] != trace.module[b[0]]:
        return False
    first, second = slice(*a), slice(*b)
    return (
        trace.module[first] == trace.module[second]
        and trace.entered[first] == trace.entered[second]
        and trace.stage[first] == trace.stage[second]
    )


class _Kept:
    """The rows that stay: all but those of the forwards that are laid over others."""

    def __init__(self, dropped: list[Span], count: int) -> None:
        self.ranges: list[Span] = []
        at = 0
        for start, stop in sorted(dropped):
            if start > at:
                self.ranges.append((at, start))
            at = stop
        if at < count:
            self.ranges.append((at, count))
        self._starts = [start for start, _ in self.ranges]
        self._before = list(accumulate((stop - start for start, stop in self.ranges), initial=0))

    def cut(self, column: Sequence[_T]) -> list[_T]:
        """The column without the other rows."""
        return list(chain.from_iterable(column[start:stop] for start, stop in self.ranges))

    def place(self, row: int) -> int | None:
        """Where the row, or the first one after it that stays, stands now; None after the last one."""
        number = bisect_right(self._starts, row) - 1
        if number >= 0 and row < self.ranges[number][1]:
            return self._before[number] + row - self.ranges[number][0]
        return self._before[number + 1] if number + 1 < len(self.ranges) else None


def _lay_over(out: Columns, trace: Trace, held: tuple[Sequence[int], Sequence[int]], group: _Group, at: int) -> None:
    """All but the interval that ends with entering, which is not part of the forward."""
    spans = [group.first, *(later for later, _ in group.later)]
    whole = slice(at, at + group.first[1] - group.first[0])
    out.repeats[whole] = map(sum, zip(*(trace.repeats[a:b] for a, b in spans), strict=True))
    inside = slice(at + 1, whole.stop)
    pairs = ((out.live, trace.live_bytes), (out.peak, trace.peak_bytes), (out.reserved, held[0]), (out.arena, held[1]))
    for column, rows in pairs:
        column[inside] = map(max, *(rows[a + 1 : b] for a, b in spans))
    # Live memory is a floor of the peak in each of them.
    out.peak[inside] = map(max, out.peak[inside], out.live[inside])
    spent = (map(mul, trace.seconds[a + 1 : b], trace.repeats[a + 1 : b]) for a, b in spans)
    out.seconds[inside] = map(sum, zip(*spent, strict=True))


def _put_after(
    out: Columns, trace: Trace, held: tuple[Sequence[int], Sequence[int]], group: _Group, kept: _Kept
) -> None:
    """What happened before a later forward happened after the one before it: it belongs to the next row that is kept."""
    for (entering, _), before in group.later:
        row = kept.place(before.first[1])
        if row is None:
            row = len(out) - 1
        out.peak[row] = max(out.peak[row], trace.peak_bytes[entering], trace.live_bytes[entering])
        out.reserved[row] = max(out.reserved[row], held[0][entering])
        out.arena[row] = max(out.arena[row], held[1][entering])
        out.seconds[row] += trace.seconds[entering] * trace.repeats[entering]


def _check(trace: Trace) -> None:
    names = ["module", "entered", "stage", "live_bytes", "peak_bytes", "seconds", "repeats"]
    names += [name for name in ("reserved_bytes", "arena_bytes", "launches") if getattr(trace, name)]
    lengths = {name: len(getattr(trace, name)) for name in names}
    if len(set(lengths.values())) != 1:
        raise InputError(f"the trace's columns differ in length ({lengths}); measure the script again")
    modules: Sequence[int] = trace.module
    if modules and not 0 <= min(modules) <= max(modules) < len(trace.modules):
        raise InputError("the trace names a module that it does not list; measure the script again")
