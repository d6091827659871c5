"""What a family of messages is: how it is found, what is read from it, and the examples that prove it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from oomdoctor.units import GIB, parse_size
from oomdoctor.values import DeviceFamily, Kind, Stage

SIZE = r"(\d{1,20}(?:\.\d{1,4})?(?:bytes|[KMGT]i?B|B))"
"""A size as ``format_size`` prints it, without its space. GB is GiB: older builds wrote it so."""

_NOT_A_SIZE = 1 << 60
"""More than any machine has: the all-ones value that stands for *not available* prints as 17179869184.00 GiB."""


def squeezed(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """A pattern for text without white space: blanks in ``pattern`` are for the reader, ``{}`` is a size."""
    return re.compile(pattern.replace(" ", "").replace("{}", SIZE), flags)


def to_bytes(text: str | None) -> int | None:
    """Bytes of a printed size; None for nothing and for the value that means *not available*."""
    if text is None:
        return None
    try:
        n = parse_size(text)
    except ValueError:
        return None
    return n if n < _NOT_A_SIZE else None


@dataclass(frozen=True)
class Numbers:
    """The figures of one message, in bytes, None where it does not say."""

    gpu: int | None = None
    requested: int | None = None
    capacity: int | None = None
    free: int | None = None
    allocated: int | None = None
    cached: int | None = None
    """Reserved by PyTorch, not allocated."""
    private: int | None = None
    allowed: int | None = None
    this_process: int | None = None
    processes: tuple[tuple[int, int], ...] = ()
    """``Process {pid} has ...`` lines: (pid, bytes)."""
    metal: int | None = None
    """MPS ``other allocations``: Metal's own, in this process, outside PyTorch's pools."""
    unlimited: bool = False
    """The message prints a limit that means *no limit*, or a process size that means *unknown*."""


@dataclass(frozen=True)
class Example:
    """A pasted message and what must be read from it."""

    text: str
    numbers: Numbers = field(default_factory=Numbers)


@dataclass(frozen=True)
class Cure:
    """What is said about an error that is not a shortage of memory."""

    cause: str
    next_step: str
    fix_families: tuple[str, ...] = ()
    stage: Stage | None = None
    component: str | None = None
    confidence: str = "high"


@dataclass(frozen=True)
class Family:
    """One format of message. Patterns are matched in text without white space."""

    name: str
    anchor: re.Pattern[str]
    needles: tuple[str, ...]
    """Literals, one of which every match contains: a cheap test before the pattern."""
    examples: tuple[Example, ...]
    memory: bool = True
    device: DeviceFamily | None = None
    kind: Kind | None = None
    """Where the message alone decides it."""
    rank: int = 50
    """Of two messages about one failure the higher rank says more: 50 has numbers, 30 is a mask, 10 a guess."""
    read: Callable[[str, re.Match[str]], Numbers] | None = None
    """From the text that begins at the anchor (bounded) and the anchor's match to numbers."""
    fatal: bool = True
    stage: Stage | None = None
    """Where such messages come from, when nothing else tells."""
    cure: Cure | None = None


def with_fields(numbers: Numbers, fields: Mapping[str, re.Pattern[str]], text: str) -> Numbers:
    """``numbers`` with each field that is found in ``text``, its first match as bytes."""
    found: dict[str, Any] = {k: to_bytes(m.group(1)) for k, pattern in fields.items() if (m := pattern.search(text))}
    return replace(numbers, **found)


def gib(n: float) -> int:
    """``n`` GiB in bytes, rounded as the printed number is read back (for examples)."""
    return int(n * GIB)


def mib(n: float) -> int:
    """``n`` MiB in bytes (for examples)."""
    return int(n * (1 << 20))
