"""The registry of message families: every wording that is known, and how to find them all in a page.

To teach a new wording, add a :class:`~oomdoctor.diagnosis.families.base.Family` with its examples to the file of its
kind; the examples are its tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oomdoctor.diagnosis.families import cuda_async, cuda_native, guess, host, masked, mps, not_memory, xpu
from oomdoctor.diagnosis.families.base import Cure, Example, Family, Numbers
from oomdoctor.diagnosis.normalise import Page

KNOWN: tuple[Family, ...] = (
    *cuda_native.FAMILIES,
    *cuda_async.FAMILIES,
    *mps.FAMILIES,
    *xpu.FAMILIES,
    *masked.FAMILIES,
    *host.FAMILIES,
    *not_memory.FAMILIES,
)
ALL: tuple[Family, ...] = (*KNOWN, *guess.FAMILIES)
BY_LINE: tuple[Family, ...] = tuple(host.BY_LINE.values())

_WINDOW = 1_600
"""The longest message, all its optional parts included, without white space; process lists can be long."""
_LONGEST_LINE = 400
_SAYS_MORE = 25
"""With a message of this rank at hand nothing is guessed from words."""
_MOST = 40
"""Sightings kept of one family: the last ones count."""


@dataclass(frozen=True)
class Sighting:
    """A message found: in ``page.squeezed`` from ``begin`` to ``end``, on line ``line``."""

    family: Family
    begin: int
    end: int
    line: int
    numbers: Numbers


def find(page: Page) -> list[Sighting]:
    """Every known message on the page, in its order. Of overlapping ones the higher rank stays."""
    found: list[Sighting] = []
    for family in KNOWN:
        if any(needle in page.squeezed for needle in family.needles):
            found.extend(_sightings(family, page))
    found.extend(_by_line(page))
    if not any(s.family.memory and s.family.rank >= _SAYS_MORE for s in found):
        for family in guess.FAMILIES:
            found.extend(_sightings(family, page))
    return _without_overlaps(sorted(found, key=lambda s: (s.begin, -s.family.rank)))


def _sightings(family: Family, page: Page) -> list[Sighting]:
    matches = list(family.anchor.finditer(page.squeezed))[-_MOST:]
    out: list[Sighting] = []
    for i, m in enumerate(matches):
        stop = min(m.start() + _WINDOW, matches[i + 1].start() if i + 1 < len(matches) else len(page.squeezed))
        text = page.squeezed[m.start() : stop]
        numbers = family.read(text, m) if family.read else Numbers()
        out.append(
            Sighting(family, m.start(), max(m.end(), m.start() + _length(text)), page.line_of(m.start()), numbers)
        )
    return out


_MESSAGE_END = re.compile(
    r"memory-management\)|cuda-alloc-conf\)?|environment-variables\)?|ALLOC_CONF(?![=:A-Z_])|freesystemfailure\)|"
    r"\(maycausesystemfailure\)|isreservedbyPyTorchbutunallocated\.?|reservedintotalbyPyTorch\)|cached\)|"
    r"inprivatepools\(e\.g\.,CUDAGraphs\)|memoryfraction\):\d{1,20}(?:\.\d+)?[KMGT]i?B|pool\.|unoccupiedcachedmemory"
)


def _length(text: str) -> int:
    """How far the message reaches into ``text``: to the last of the phrases that messages end with."""
    last = 0
    for m in _MESSAGE_END.finditer(text):
        last = m.end()
    return last


def _by_line(page: Page) -> list[Sighting]:
    out: list[Sighting] = []
    for name, literals, pattern in host.LINES:
        lines: dict[int, None] = {}
        for literal in literals:
            at = page.squeezed.rfind(literal)
            while at >= 0 and len(lines) < _MOST:
                lines[page.line_of(at)] = None
                at = page.squeezed.rfind(literal, 0, at)
        for i in lines:
            if len(page.lines[i]) < _LONGEST_LINE and pattern.search(page.lines[i]):
                out.append(Sighting(host.BY_LINE[name], page.starts[i], page.starts[i] + 1, i, Numbers()))
    return out


def _without_overlaps(found: list[Sighting]) -> list[Sighting]:
    """Of two sightings of one stretch of text the one of higher rank: a torn or guessed reading gives way."""
    kept: list[Sighting] = []
    for s in found:
        if kept and s.begin < kept[-1].end and (s.family.rank < 45 or s.line == kept[-1].line):
            if s.family.rank > kept[-1].family.rank:
                kept[-1] = s
            continue
        kept.append(s)
    return kept


__all__ = ["ALL", "BY_LINE", "Cure", "Example", "Family", "Numbers", "Sighting", "find"]
