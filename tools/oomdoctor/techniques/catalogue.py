"""Every technique as plain data: the tables of the README, the skill and the tools' help are generated from this.

>>> from oomdoctor.techniques.catalogue import catalogue
>>> [e.name for e in catalogue() if "quantization" in e.tags]
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from oomdoctor.techniques.base import Changes, Refusal, Technique
from oomdoctor.values import Strategy

_TYPES = {bool: "true or false", int: "number", str: "text", float: "number"}


@dataclass(frozen=True, slots=True)
class Option:
    """A word or a ``key=value`` that may stand in a technique's brackets."""

    name: str
    kind: str
    """``word``, ``component``, or what values a key takes (``number``, ``true or false``, ``text``)."""
    summary: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A script before and after."""

    strategy: str
    before: str
    after: str
    why: str
    by_hand: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A script for which the technique is not legal, and a part of the reason that is given."""

    strategy: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One technique."""

    name: str
    summary: str
    """One line."""
    about: str
    """A paragraph or two: when to use it, what to watch."""
    docs: str
    """Link to the libraries' own documentation."""
    tags: tuple[str, ...]
    phase: str
    """Where in a script it stands: ``load``, ``quantize``, ``offload`` ..., in the order in which they must come."""
    quality: str
    """``bit-identical``, ``numerically equivalent``, ``slight`` or ``noticeable``."""
    group: str
    settles: bool
    """A strategy without it takes an existing use out of a script."""
    conflicts: tuple[str, ...]
    """Names of all techniques that cannot stand beside it."""
    packages: tuple[str, ...]
    """What has to be installed beyond torch, diffusers and transformers."""
    options: tuple[Option, ...]
    written: tuple[str, ...]
    """The strategies of its examples, as a person writes them."""
    examples: tuple[Sample, ...]
    refusals: tuple[Refused, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and tuples."""
        return asdict(self)


@cache
def catalogue() -> tuple[Entry, ...]:
    """All techniques in the order in which they stand in a script."""
    from oomdoctor.techniques import all_techniques, clashes

    known = all_techniques()
    return tuple(_entry(t, tuple(n for n in known if n != t.name and clashes(t.name, n))) for t in known.values())


def _entry(known: Technique, conflicts: tuple[str, ...]) -> Entry:
    changes = [e for e in known.examples if isinstance(e, Changes)]
    return Entry(
        name=known.name,
        summary=known.summary,
        about=_about(known),
        docs=known.docs,
        tags=tuple(known.tags),
        phase=known.phase.name.lower(),
        quality=known.quality.value,
        group=known.group,
        settles=known.settles,
        conflicts=conflicts,
        packages=known.packages,
        options=_options(known),
        written=tuple(dict.fromkeys(e.strategy for e in changes if known.name in _names(e.strategy))),
        examples=tuple(Sample(e.strategy, e.before, e.after, e.why, e.by_hand) for e in changes),
        refusals=tuple(Refused(e.strategy, e.code, e.why) for e in known.examples if isinstance(e, Refusal)),
    )


def _names(strategy: str) -> list[str]:
    return [a.technique for a in Strategy.parse(strategy).applications]


def _about(known: Technique) -> str:
    """What the technique's file says at its top, without the markup of docstrings."""
    module = inspect.getmodule(type(known))
    return inspect.cleandoc((module and module.__doc__) or known.summary).replace("``", "`")


def _options(known: Technique) -> tuple[Option, ...]:
    explained = known.explains
    found: list[Option] = []
    if known.words == "components" or "component" in explained:
        found.append(Option("component", "component", explained.get("component", "Only these parts of the pipeline.")))
    extra = [w for w in explained if w not in known.keys and w != "component"]
    extra = [w for w in extra if w != "component="]
    for word in dict.fromkeys([*(known.words if isinstance(known.words, tuple) else ()), *extra]):
        found.append(Option(word, "word", explained.get(word, "")))
    if known.component_keys:
        kind = " or ".join(_TYPES[t] for t in known.component_keys)
        found.append(Option("component", kind, explained.get("component=", "")))
    for key, types in known.keys.items():
        found.append(Option(key, " or ".join(_TYPES[t] for t in types), explained.get(key, "")))
    return tuple(found)
