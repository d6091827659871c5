"""Which of the messages on a page is the failure: the last root cause, not its echo and not an earlier recovery."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from oomdoctor.diagnosis.families import Sighting
from oomdoctor.diagnosis.frames import Frames
from oomdoctor.diagnosis.normalise import Page

_EXPLICIT = 40
"""Messages of this rank name what ran out; below are masks, warnings and guesses."""
_MASK = 25
_SAME_FAILURE = 6
"""Messages this many lines apart, without a new traceback between them, are about one failure."""
_EXCEPTION = re.compile(
    r"\s{0,40}((?:[A-Za-z_]\w{0,80}\.){0,12}[A-Za-z_]\w{0,80}(?:Error|Exception|Interrupt|Exit))(?::\s|:?$)"
)
_OTHER_FAILURE = re.compile(
    r"(?i)segmentation fault|core dumped|^\s{0,40}fatal\b|^\s{0,40}error:\s|CUDA error:|^\s{0,8}!!! Exception"
)


@dataclass(frozen=True)
class Chosen:
    """The failure, and the memory error that it came after or that was being handled when it came, if any."""

    sighting: Sighting
    earlier: Sighting | None = None


@dataclass(frozen=True)
class Unrecognised:
    """An exception of a kind that is not known here: its class, its line."""

    error_type: str
    line: int


def choose(found: list[Sighting], frames: Frames) -> Chosen | None:
    """The sighting that the person is asking about; None when there is none."""
    memory = [s for s in found if s.family.memory and s.family.fatal]
    others = [s for s in found if not s.family.memory]
    for least in (_EXPLICIT, _MASK):
        candidates = [s for s in memory if s.family.rank >= least]
        if candidates:
            main = _of_one_failure(candidates, frames)
            later = [s for s in others if s.family.rank >= _MASK and _fresh(main.line, s.line, frames)]
            if later:
                return Chosen(later[-1], earlier=main)
            return Chosen(_with_warning(main, found), earlier=_handled_before(main, candidates, frames))
    rest = [s for s in found if s.family.rank >= _MASK] or found
    if not rest:
        return None
    best = max(s.family.rank for s in rest)
    return Chosen([s for s in rest if s.family.rank == best][-1])


def _handled_before(main: Sighting, candidates: list[Sighting], frames: Frames) -> Sighting | None:
    """The memory error that was being handled when ``main`` happened."""
    before = [s for s in candidates if any(s.line < b <= main.line for b in frames.handled)]
    return before[-1] if before else None


def _of_one_failure(candidates: list[Sighting], frames: Frames) -> Sighting:
    """The last message, or the one just before it that says more about the same failure."""
    main = candidates[-1]
    for s in reversed(candidates[:-1]):
        apart = main.line - s.line > _SAME_FAILURE or any(s.line < b <= main.line for b in frames.boundaries)
        if apart:
            break
        if s.family.rank > main.family.rank:
            main = s
    return main


def _fresh(before: int, line: int, frames: Frames) -> bool:
    """A new traceback begins between the two lines, and not while the first error was being handled."""
    between = [b for b in frames.boundaries if before < b <= line]
    return bool(between) and not any(b in frames.handled for b in between)


def _with_warning(main: Sighting, found: list[Sighting]) -> Sighting:
    """Figures that only the allocator's warning printed, when it is about this failure."""
    warnings = [s for s in found if s.family.name == "cuda_warning"]
    if not warnings or main.family.device != "cuda":
        return main
    n, w = main.numbers, warnings[-1].numbers
    same = n.requested is None or (w.requested is not None and abs(n.requested - w.requested) <= n.requested // 100)
    if not same:
        return main
    merged = replace(
        n,
        gpu=n.gpu if n.gpu is not None else w.gpu,
        requested=n.requested if n.requested is not None else w.requested,
        capacity=n.capacity if n.capacity is not None else w.capacity,
        free=n.free if n.free is not None else w.free,
    )
    return replace(main, numbers=merged)


def unrecognised(page: Page) -> Unrecognised | None:
    """The last line that names an exception or another failure; None for text without any."""
    failure: Unrecognised | None = None
    for i in range(len(page.lines) - 1, -1, -1):
        line = page.lines[i]
        if len(line) > 4_000 or not line:
            continue
        if m := _EXCEPTION.match(line):
            return Unrecognised(m.group(1), i)
        if failure is None and (_OTHER_FAILURE.search(line) or "Traceback (most recent call last" in line):
            failure = Unrecognised("error", i)
    return failure


def error_type(page: Page, s: Sighting) -> str | None:
    """The exception class printed before the message: on its line, or on the line above when it was wrapped."""
    for i in (s.line, s.line - 1):
        if i < 0:
            break
        line = page.lines[i][:2_000]
        names = list(
            re.finditer(r"((?:[A-Za-z_]\w{0,80}\.){0,12}[A-Za-z_]\w{0,80}(?:Error|Exception|Warning))\s?:", line)
        )
        if names:
            return names[-1].group(1)
        bare = re.fullmatch(r"\s{0,40}((?:[A-Za-z_]\w{0,80}\.){0,12}[A-Za-z_]\w{0,80}Error):?\s{0,10}", line)
        if bare:
            return bare.group(1)
    return None
