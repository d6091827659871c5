"""Edits are collected first and applied last, in one go, so that every line that no edit names stays as it was."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from oomdoctor.values import Reason


@dataclass(frozen=True, slots=True)
class Edit:
    """``source[start:end]`` becomes ``new``. Insertions at one place stand in the order of ``rank``."""

    start: int
    end: int
    new: str
    technique: str
    reason: str
    rank: int = 0


def merged(edits: Iterable[Edit]) -> list[Edit]:
    """In order of position; the same edit asked for twice counts once; one inside a removed range is dropped.

    Raises ``ValueError`` when two edits contradict each other.
    """
    first: dict[tuple[int, int, str], Edit] = {}
    for edit in edits:
        first.setdefault((edit.start, edit.end, edit.new), edit)
    distinct = list(first.values())
    kept: list[Edit] = []
    for edit in sorted((e for e in distinct if e.end > e.start), key=lambda e: (e.start, -e.end)):
        last = kept[-1] if kept else None
        if last is None or edit.start >= last.end:
            kept.append(edit)
        elif last.new or edit.end > last.end:
            raise ValueError(f"two edits overlap: {last} and {edit}")
    insertions = [e for e in distinct if e.end == e.start and not any(k.start < e.start < k.end for k in kept)]
    return sorted([*kept, *insertions], key=lambda e: (e.start, e.end > e.start, e.rank))


def apply(source: str, edits: Iterable[Edit]) -> tuple[str, tuple[Reason, ...]]:
    """The edited text, and for each edit that has something to say the line where it now stands."""
    parts: list[str] = []
    reasons: list[Reason] = []
    position, line = 0, 1
    for edit in merged(edits):
        untouched = source[position : edit.start]
        parts += (untouched, edit.new)
        line += _breaks(untouched)
        lead = len(edit.new) - len(edit.new.lstrip("\r\n"))
        if edit.reason:
            reasons.append(Reason(line=line + _breaks(edit.new[:lead]), technique=edit.technique, text=edit.reason))
        line += _breaks(edit.new)
        position = edit.end
    parts.append(source[position:])
    return _ended_like(source, "".join(parts)), _distinct(reasons)


def _ended_like(source: str, text: str) -> str:
    """``text`` without a final line break when ``source`` has none."""
    if source.endswith(("\n", "\r")) or not source:
        return text
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text.removesuffix("\r")


def unified_diff(before: str, after: str, name: str) -> str:
    """A diff that ``patch`` and ``git apply`` take; empty when nothing changed."""
    if before == after:
        return ""
    lines: list[str] = []
    rows = difflib.unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}")
    for row in rows:
        lines.append(row if row.endswith("\n") else f"{row}\n\\ No newline at end of file\n")
    return "".join(lines)


def _lines(text: str) -> list[str]:
    """Split at ``\\n`` only, as ``patch`` does: form feeds and exotic separators stay inside a line."""
    rows = text.split("\n")
    return [row + "\n" for row in rows[:-1]] + ([rows[-1]] if rows[-1] else [])


def _breaks(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _distinct(reasons: list[Reason]) -> tuple[Reason, ...]:
    """One reason per technique and sentence: several edits may serve one purpose."""
    seen: dict[tuple[str, str], Reason] = {}
    for reason in reasons:
        seen.setdefault((reason.technique, reason.text), reason)
    return tuple(seen.values())
