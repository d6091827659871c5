"""From what people write to one card of the catalogue: ``card("RTX 3060")``, ``card("A100-80G")``, ``card("4090 laptop")``.

A spelling is cut into words, the maker's words are dropped, a size is taken out; what is left must be exactly the words
of a card. Words that nobody knows are never ignored: ``"RTX 4090 MIG"`` is not a 4090.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from oomdoctor.errors import UnknownCard
from oomdoctor.hardware.gpus.catalogue import Row, rows
from oomdoctor.values.hardware import Card

_SIZE = re.compile(r"(?<![a-z0-9])(\d+)\s*(g|gb|gib|go|mb|mib)(?![a-z0-9])")
_WORD = re.compile(r"[a-z0-9]+")
_SPLIT = re.compile(
    r"(rtx|gtx|titan|quadro|tesla|geforce|rx|laptop|mobile)?(\d{4})(ti|super|xtx|xt|d|m|laptop|mobile)?(super|laptop|mobile)?"
)
_NOISE = frozenset(
    {
        "nvidia",
        "geforce",
        "gpu",
        "graphics",
        "card",
        "tesla",
        "amd",
        "radeon",
        "instinct",
        "generation",
        "edition",
        "rtx",
        "gtx",
        "rx",
        "vram",
    }
)
_NOISE_PATTERN = re.compile(r"sxm\d?|hbm\d?e?")
_SAME = {"mobile": "laptop", "notebook": "laptop", "m": "laptop", "maxq": "laptop"}


class Spelling(NamedTuple):
    words: frozenset[str]
    size_gb: int | None


def parse(text: str) -> Spelling:
    """The words that tell cards apart, and the memory size when one is written."""
    text = text.lower().replace("max-q", "maxq")
    # "A100-80G" and "A100_80GB" are separated; "RTX 3060-12" is not, and a bare number is never a size.
    size = None
    if found := _SIZE.search(text.replace("_", " ")):
        amount, unit = int(found[1]), found[2]
        size = round(amount / 1024) if unit.startswith("m") else amount
        text = text.replace("_", " ")
        text = text[: found.start()] + " " + text[found.end() :]
    words: set[str] = set()
    for word in _WORD.findall(text):
        glued = _SPLIT.fullmatch(word)
        for part in (p for p in (glued.groups() if glued else (word,)) if p):
            if part not in _NOISE and not _NOISE_PATTERN.fullmatch(part):
                words.add(_SAME.get(part, part))
    return Spelling(frozenset(words), size)


def card(name: str) -> Card:
    """The card of the catalogue that ``name`` means: a catalogue name, a driver's name, or a loose spelling of one.

    Raises :class:`UnknownCard` with the candidates when several cards could be meant (``"A100"`` is sold with 40 and
    80 GB), and with the nearest names when none is.
    """
    asked = name.strip().lower()
    for row in rows():
        if asked == row.card.name:
            return row.card
    wanted = parse(name)
    exact = matching(wanted.words)
    found = [r for r in exact if wanted.size_gb is None or wanted.size_gb in _sizes(r)]
    if exact and not found:
        raise UnknownCard(f"There is no {name!r} in the catalogue: that card is known as {_list(exact)}.{_OUT}")
    if not found and any(any(c.isdigit() for c in w) for w in wanted.words):
        found = [r for r in rows() if any(wanted.words < s.words for s in _spellings(r))]
        found = [r for r in found if wanted.size_gb is None or wanted.size_gb in _sizes(r)]
    if len(found) > 1:
        same = [r for r in found if r.card.label.lower() == asked]
        usual = [r for r in found if r.usual]
        found = next((few for few in (same, usual) if len(few) == 1), found)
    if len(found) == 1:
        return found[0].card
    if found:
        raise UnknownCard(f"{name!r} could be any of {_list(found)}. Give one of these names.")
    raise UnknownCard(f"No card called {name!r} is in the catalogue{_nearest(asked)}.{_OUT}")


_OUT = " `oom-doctor gpus` lists all cards; for a card that is not among them give its memory with --vram."


def matching(words: frozenset[str]) -> list[Row]:
    """The cards whose words are exactly these, whatever their memory."""
    return [row for row in rows() if words and any(words == s.words for s in _spellings(row))]


@cache
def _spellings(row: Row) -> tuple[Spelling, ...]:
    return tuple(parse(text) for text in (row.card.name, row.card.label, *row.also))


def _sizes(row: Row) -> set[int]:
    return {row.size_gb} | {s.size_gb for s in _spellings(row) if s.size_gb is not None}


def _list(found: Iterable[Row]) -> str:
    names = [row.card.name for row in found]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _nearest(asked: str) -> str:
    names = [row.card.name for row in rows()]
    near = difflib.get_close_matches(re.sub(r"[^a-z0-9]+", "-", asked), names, n=4, cutoff=0.5)
    return f"; the nearest are {', '.join(near)}" if near else ""
