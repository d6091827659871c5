"""Pasted text made plain: colours, HTML, notebook JSON, boxes, log prefixes and progress bars taken off, line by line.

The result is a :class:`Page`. Besides its lines it has the text with *all* white space removed: terminals and chats
wrap messages anywhere, even inside a word or a number, so messages are matched there. Every pattern here is bounded,
so the time is linear in the text.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from dataclasses import dataclass

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]?|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]?")
_ESCAPED_ANSI = re.compile(r"\\(?:u001b|x1b|033|e)\[[0-9;]{0,20}m")
_TAG = re.compile(
    r"<(?P<break>br|/p|/div|/tr|/li)\b[^<>]{0,200}>|"
    r"</?(?:span|pre|div|code|font|b|i|u|em|strong|a|p|samp|tt|details|summary|td|tr|li|ul)(?:\s[^<>]{0,300})?>",
    re.IGNORECASE,
)
_LINK = re.compile(r"\[([^\]\n]{1,300})\]\(https?://[^)\s]{0,300}\)")
"""A link as Colab writes file names when a traceback is copied."""
_ENTITY = re.compile(r"&(?:#\d{1,6}|#x[0-9a-fA-F]{1,6}|lt|gt|amp|quot|apos|nbsp);")
_BAR = re.compile(
    r"(?<!\d)\d{1,3}%\s{0,3}\|[^|\n]{0,400}\|\s{0,3}(?P<n>\d{1,9})/(?P<of>\d{1,9})(?:\s{0,3}\[[^\]\n]{0,80}\]?)?"
)
_LOOSE_BAR = re.compile(
    r"(?:\||(?<![\d/.]))\s{0,3}(?P<n>\d{1,9})/(?P<of>\d{1,9})\s{0,3}\[\d{1,4}:\d\d(?::\d\d)?<[^\]\n]{0,80}\]"
)
"""A bar whose picture is missing: notebooks show it as a widget, which is not copied."""
_RANK = re.compile(r"\s{0,8}\[(rank\d{1,5})\]:\s?")
_PREFIX = re.compile(
    r"\s{0,80}(?:"
    r"\[[WEIF]?\d[^\]\n]{0,70}\]:?\s?"  # [2025-04-07 03:45:04], [W801 09:08:57.49 CUDACachingAllocator.cpp:3933]
    r"|\[(?:info|warn|warning|error|debug|critical|fatal|stderr|stdout)\]:?\s?"
    r"|\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\s?(?:[-|:]\s)?"
    r"|\d\d:\d\d:\d\d(?:[.,]\d{1,9})?\s?(?:[-|:]\s)?"
    r"|(?:stderr|stdout)\s[FP]\s"
    r"|(?:INFO|WARNING|ERROR|DEBUG|CRITICAL)\s\d\d-\d\d\s\d\d:\d\d:\d\d\s(?:\[[\w./-]{1,60}:\d{1,6}\]\s)?"
    r"|(?:INFO|WARNING|ERROR|DEBUG|CRITICAL):[\w.]{1,60}:\s?"
    r"|(?:INFO|WARNING|ERROR|DEBUG|CRITICAL)\s{1,3}[-|:]\s"
    r"|\([\w .=-]{1,60}pid=[^)\n]{1,60}\)\s?"
    r"|[\w.-]{1,40}[-_]\d{1,4}\s{2,20}\|\s"
    r"|[│┃║|╎]\s?(?![|])"
    r"|>\s"
    r"|E\s{3}"
    r")",
    re.IGNORECASE,
)
_ENDS = " \t│┃║|╎"
_NOISE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\xa0╭╮╰╯┌┐└┘─━═╔╗╚╝]")
"""Control characters and the edges of boxes: each becomes a blank."""
_INVISIBLE = re.compile("[\u200b\ufeff]")
_STARTS = frozenset("[(0123456789│┃║|╎>")
_WORD_STARTS = ("info", "warn", "erro", "debu", "crit", "stde", "stdo", "e   ")
_MAX_PREFIXES = 6
_SHORT = 10
"""Lines shorter than this carry no prefix that could hide anything."""


@dataclass(frozen=True)
class Progress:
    """A progress bar: ``n`` of ``of`` done when the line ``line`` was printed."""

    line: int
    label: str
    n: int
    of: int


@dataclass(frozen=True)
class Page:
    """Clean text. ``squeezed[starts[i]:starts[i + 1]]`` is ``lines[i]`` without white space."""

    lines: tuple[str, ...]
    ranks: tuple[str | None, ...]
    squeezed: str
    starts: tuple[int, ...]
    progress: tuple[Progress, ...]

    def line_of(self, at: int) -> int:
        """Index of the line that holds position ``at`` of ``squeezed``."""
        return max(0, bisect_right(self.starts, at) - 1)

    def around(self, line: int, before: int = 60_000, after: int = 8_000, head: int = 8_000) -> str:
        """The clean text around ``line`` and the beginning of the page, about as many characters as said."""
        first, size = line, 0
        while first > 0 and size < before:
            first -= 1
            size += len(self.lines[first]) + 1
        last, size = line, 0
        while last < len(self.lines) and size < after:
            size += len(self.lines[last]) + 1
            last += 1
        top, size = 0, 0
        while top < first and size < head:
            size += len(self.lines[top]) + 1
            top += 1
        parts = [*self.lines[:top], *self.lines[first:last]]
        return "\n".join(part[:4_000] for part in parts)

    def text(self, begin: int, end: int) -> str:
        """The clean text of positions ``begin`` to ``end`` of ``squeezed``, white space joined."""
        first, last = self.line_of(begin), self.line_of(max(begin, end - 1))
        return " ".join(" ".join(line.split()) for line in self.lines[first : last + 1]).strip()


def normalise(text: str) -> Page:
    """The page of ``text``, which should be bounded (see :func:`~oomdoctor.diagnosis.condense.condense`)."""
    text = _plain(text)
    lines: list[str] = []
    ranks: list[str | None] = []
    progress: list[Progress] = []
    for raw in text.split("\n"):
        line, rank = _strip(raw)
        if "%" in line or "/s]" in line or "/it]" in line:
            pieces = _take_bars(line, len(lines), progress)
        else:
            pieces = [line]
        lines.extend(pieces)
        ranks.extend([rank] * len(pieces))
    starts: list[int] = []
    parts: list[str] = []
    at = 0
    for line in lines:
        starts.append(at)
        squeezed = "".join(line.split())
        parts.append(squeezed)
        at += len(squeezed)
    return Page(tuple(lines), tuple(ranks), "".join(parts), tuple(starts), tuple(progress))


def _plain(text: str) -> str:
    """Without escapes, tags and control characters; a carriage return ends a line."""
    if '"traceback"' in text or '"output_type"' in text:
        text = text.replace("\\n", "\n").replace('\\"', '"')
    if "\\" in text:
        text = _ESCAPED_ANSI.sub("", text)
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "](http" in text:
        text = _LINK.sub(r"\1", text)
    if "<" in text:
        text = _TAG.sub(lambda m: "\n" if m.group("break") else "", text)
    if "&" in text:
        text = _ENTITY.sub(lambda m: html.unescape(m.group()), text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _NOISE.sub(" ", text if text.isascii() else _INVISIBLE.sub("", text))


def _strip(line: str) -> tuple[str, str | None]:
    """``line`` without what loggers, boxes and quoting put before and after it, and the rank it came from."""
    rank = None
    if len(line) < _SHORT:
        return line, None
    for _ in range(_MAX_PREFIXES):
        if not _may_have_prefix(line):
            break
        if m := _RANK.match(line):
            rank = m.group(1)
        elif not (m := _PREFIX.match(line)):
            break
        line = line[m.end() :]
    return line.rstrip(_ENDS), rank


def _may_have_prefix(line: str) -> bool:
    """A cheap test that most lines fail."""
    rest = line.lstrip()
    return rest[:1] in _STARTS or rest[:4].lower() in _WORD_STARTS or "  | " in rest[:64]


def _take_bars(line: str, index: int, progress: list[Progress]) -> list[str]:
    """What stands between the progress bars of ``line``, which go to ``progress``."""

    def note(m: re.Match[str]) -> str:
        label = line[max(0, m.start() - 80) : m.start()].rsplit("|", 1)[-1].strip(" \t:.")
        progress.append(Progress(index, label, int(m.group("n")), int(m.group("of"))))
        return "\n"

    return _LOOSE_BAR.sub(note, _BAR.sub(note, line)).split("\n")
