"""The rows of a trace as plain columns, with consecutive identical forwards of a component laid over each other.

A run executes a few steps of the denoiser and replays the others; the executed ones enter the same modules in the same
order. For peaks only the highest of them counts and for time their sum, so they are one forward to the digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import add, mul, sub

from oomdoctor.errors import InputError
from oomdoctor.values import Stage, Trace


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
    first: list[int]
    """Repeats of the first of the forwards that were laid over each other."""

    def __len__(self) -> int:
        return len(self.module)


def columns(trace: Trace) -> Columns:
    """The columns of the call, merged. What comes before the first module (loading, placing) carries no time and no peak.

    Raises :class:`InputError` for columns of different length and for modules that are not listed.
    """
    _check(trace)
    count = len(trace.module)
    out = Columns(
        list(trace.module),
        list(trace.entered),
        list(trace.stage),
        list(trace.live_bytes),
        list(map(max, trace.peak_bytes, trace.live_bytes)),
        list(map(mul, trace.seconds, trace.repeats)),
        list(trace.repeats),
        list(trace.reserved_bytes) or [0] * count,
        list(trace.repeats),
    )
    if count:
        out.peak[0], out.seconds[0] = out.live[0], 0.0
    return _merged(out)


def reused_caches(trace: Trace) -> dict[Stage, int]:
    """By stage: bytes of what earlier stages left in the allocator's cache that it is sure to have used.

    What is alive at a moment and was not newly reserved since the stage began must have come from the cache.
    """
    out: dict[Stage, int] = {}
    reserved, start = trace.reserved_bytes, 0
    if not reserved:
        return out
    for stage, stretch in groupby(trace.stage):
        stop = start + len(list(stretch))
        if start and stage not in out:
            grown = map(sub, trace.peak_bytes[start:stop], reserved[start:stop])
            out[stage] = max(0, max(grown) + reserved[start - 1])
        start = stop
    return out


def _merged(rows: Columns) -> Columns:
    spans = _spans(rows)
    drop: list[tuple[int, int]] = []
    between: list[tuple[tuple[int, int], int]] = []
    first: tuple[int, int] | None = None
    for start, stop in spans:
        if first is not None and _alike(rows, first, (start, stop)):
            _lay_over(rows, first, (start, stop))
            between.append((first, start))
            drop.append((start, stop))
        else:
            first = (start, stop)
    dropped = dict(drop)
    for span, entering in between:
        _put_after(rows, span, entering, dropped)
    for start, stop in reversed(drop):
        for column in vars(rows).values():
            del column[start:stop]
    return rows


def _put_after(rows: Columns, span: tuple[int, int], entering: int, dropped: dict[int, int]) -> None:
    """What happened before a later forward happened after the first one: it belongs to the next row that is kept."""
    row = span[1]
    while row in dropped:
        row = dropped[row]
    if row >= len(rows):
        row = span[1] - 1
    rows.peak[row] = max(rows.peak[row], rows.peak[entering])
    rows.reserved[row] = max(rows.reserved[row], rows.reserved[entering])
    rows.seconds[row] += rows.seconds[entering]


def _spans(rows: Columns) -> list[tuple[int, int]]:
    """Outermost forwards as (row of entering, row after leaving)."""
    out: list[tuple[int, int]] = []
    at, count = 0, len(rows)
    module, entered = rows.module, rows.entered
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


def _alike(rows: Columns, a: tuple[int, int], b: tuple[int, int]) -> bool:
    """The same modules in the same order and stage. The entering row may come from another stage."""
    if a[1] - a[0] != b[1] - b[0] or rows.module[a[0]] != rows.module[b[0]]:
        return False
    first, second = slice(*a), slice(*b)
    return (
        rows.module[first] == rows.module[second]
        and rows.entered[first] == rows.entered[second]
        and rows.stage[first] == rows.stage[second]
    )


def _lay_over(rows: Columns, a: tuple[int, int], b: tuple[int, int]) -> None:
    """All but the interval that ends with entering, which is not part of the forward."""
    first, second = slice(*a), slice(*b)
    rows.repeats[first] = map(add, rows.repeats[first], rows.repeats[second])
    first, second = slice(a[0] + 1, a[1]), slice(b[0] + 1, b[1])
    rows.live[first] = map(max, rows.live[first], rows.live[second])
    rows.peak[first] = map(max, rows.peak[first], rows.peak[second])
    rows.seconds[first] = map(add, rows.seconds[first], rows.seconds[second])
    rows.reserved[first] = map(max, rows.reserved[first], rows.reserved[second])


def _check(trace: Trace) -> None:
    names = ["module", "entered", "stage", "live_bytes", "peak_bytes", "seconds", "repeats"]
    lengths = {
        name: len(getattr(trace, name)) for name in (*names, *(["reserved_bytes"] if trace.reserved_bytes else []))
    }
    if len(set(lengths.values())) != 1:
        raise InputError(f"the trace's columns differ in length ({lengths}); measure the script again")
    modules: Sequence[int] = trace.module
    if modules and not 0 <= min(modules) <= max(modules) < len(trace.modules):
        raise InputError("the trace names a module that it does not list; measure the script again")
