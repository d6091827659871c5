"""Any amount of pasted text, cut down to the parts that can matter, in linear time.

A log of hours is mostly not about its end. What is kept: the beginning (versions, the command), the end, and a window
around the first and the last mentions of each word that announces a failure. Everything after this step works on a
bounded text.
"""

from __future__ import annotations

BUDGET = 160_000
"""Characters kept at most; shorter text is returned as it is."""

_HEAD = 12_000
_TAIL = 48_000
_BEFORE = 24_000
"""A traceback through compiled code and hooks can be this long."""
_AFTER = 4_000
_GAP = "\n[...]\n"

_MARKS = (
    "Tried to allocate", "out of memory", "Out of memory", "OutOfMemory", "Allocation on device", "buffer size",
    "DefaultCPUAllocator", "1455", "Killed", "killed", "CUDNN_STATUS", "CUBLAS_STATUS", "NVML_SUCCESS", "CUDA error",
    "allocation failed", "MemoryError", "annot allocate", "all available RAM", "137", "on the same device",
    "meta tensor", "dtype", "invalid value", "Traceback (most recent", "Error:", "Exception:",
)  # fmt: skip
"""What announces a failure, the most telling first: windows are taken in this order until the budget is used up."""


def condense(text: str) -> str:
    """``text`` itself when short, else its telling parts in their order, joined by a line ``[...]``."""
    if len(text) <= BUDGET:
        return text
    spans = [(0, _HEAD), (len(text) - _TAIL, len(text))]
    left = BUDGET - _HEAD - _TAIL
    for mark in _MARKS:
        for at in _places(text, mark):
            span = (max(0, at - _BEFORE), min(len(text), at + _AFTER))
            cost = _uncovered(span, spans)
            if cost > left:
                return _join(text, spans)
            if cost:
                spans.append(span)
                left -= cost
    return _join(text, spans)


def _places(text: str, mark: str) -> list[int]:
    """The last two places of ``mark`` and its first."""
    last = text.rfind(mark)
    if last < 0:
        return []
    earlier = text.rfind(mark, 0, max(0, last - _BEFORE))
    first = text.find(mark)
    return [at for at in dict.fromkeys((last, earlier, first)) if at >= 0]


def _uncovered(span: tuple[int, int], spans: list[tuple[int, int]]) -> int:
    """How many characters of ``span`` are in none of ``spans``."""
    at, missing = span[0], 0
    for begin, end in sorted(spans):
        if end <= at:
            continue
        if begin >= span[1]:
            break
        missing += max(0, begin - at)
        at = max(at, end)
    return missing + max(0, span[1] - at)


def _join(text: str, spans: list[tuple[int, int]]) -> str:
    parts: list[str] = []
    covered = 0
    for begin, end in sorted(spans):
        begin = max(begin, covered)
        if begin < end:
            if begin > covered:
                parts.append(_GAP)
            parts.append(text[begin:end])
            covered = end
    return "".join(parts)
