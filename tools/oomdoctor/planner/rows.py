"""The rows of a trace as plain columns, with consecutive identical forwards of a component laid over each other.

A run executes a few steps of the denoiser and replays the others; the executed ones enter the same modules in the same
order. For peaks only the highest of them counts and for time their sum, so they are one forward to the digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, mul

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


def _merged(rows: Columns) -> Columns:
    spans = _spans(rows)
    drop: list[tuple[int, int]] = []
    first: tuple[int, int] | None = None
    for start, stop in spans:
        if first is not None and _alike(rows, first, (start, stop)):
            _lay_over(rows, first, (start, stop))
            drop.append((start, stop))
        else:
            first = (start, stop)
    for start, stop in reversed(drop):
        for column in vars(rows).values():
            del column[start:stop]
    return rows


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
    first, second = slice(*a), slice(*b)
    rows.live[first] = map(max, rows.live[first], rows.live[second])
    rows.peak[first] = map(max, rows.peak[first], rows.peak[second])
    rows.seconds[first] = map(add, rows.seconds[first], rows.seconds[second])
    rows.repeats[first] = map(add, rows.repeats[first], rows.repeats[second])
    # The entering row ends what went before the first forward: what later ones found held came after that.
    inside, after = slice(a[0] + 1, a[1]), slice(b[0] + 1, b[1])
    rows.reserved[inside] = map(max, rows.reserved[inside], rows.reserved[after])


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
