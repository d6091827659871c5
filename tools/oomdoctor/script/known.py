"""From what an expression stands for to the fact that the Script value carries."""

from __future__ import annotations

import ast
from typing import Any

from oomdoctor.script import folding, libraries
from oomdoctor.script.domain import Abstract, Const, Either, Made, Mapping, Named, Ref, Sequence
from oomdoctor.script.text import Source
from oomdoctor.values import Certainty, Known

MAX_EXCERPT = 400
_MAX_DEPTH = 12
_MAX_VALUES = 2_000


class _Budget:
    """How many values may still be written out: lists of lists of lists grow faster than anyone reads."""

    def __init__(self) -> None:
        self.left = _MAX_VALUES

    def spend(self) -> bool:
        self.left -= 1
        return self.left >= 0


def plain(value: Abstract) -> tuple[Any, bool, bool]:
    """JSON of a value, whether it is known (as a whole), whether all of it is written there literally."""
    budget = _Budget()
    json, certain, literal = _plain(value, 0, budget)
    return (json, certain, literal) if budget.left >= 0 else (None, False, False)


def _plain(value: Abstract, depth: int, budget: _Budget) -> tuple[Any, bool, bool]:
    if depth > _MAX_DEPTH or not budget.spend():
        return None, False, False
    if isinstance(value, Const):
        return value.value, True, value.literal
    if isinstance(value, Named):
        dtype = libraries.dtype_of(value.qualified)
        if dtype:
            return dtype, True, True
        # A bare library name is a value of its own (a class, an enum member), not something unknown.
        return value.qualified.removeprefix(libraries.UNRESOLVED + "."), libraries.root(value.qualified) != "?", True
    if isinstance(value, Sequence):
        if value.open or len(value.items) > budget.left:
            return None, False, False
        parts = [_plain(item, depth + 1, budget) for item in value.items]
        return [p[0] for p in parts], True, all(p[1] and p[2] for p in parts)
    if isinstance(value, Mapping):
        entries = {key: _plain(item, depth + 1, budget) for key, item in value.items.items()}
        literal = all(p[1] and p[2] for p in entries.values()) and not value.open
        return {key: p[0] for key, p in entries.items()}, not value.open, literal
    if isinstance(value, Made) and libraries.last(value.qualified) in libraries.PATHS:
        path = folding.join_path(value.positional)
        return (path.value, True, False) if isinstance(path, Const) else (None, False, False)
    if isinstance(value, Made):
        return _made(value, depth, budget)
    return None, False, False


def _made(value: Made, depth: int, budget: _Budget) -> tuple[Any, bool, bool]:
    positional = [_plain(item, depth + 1, budget) for item in value.positional]
    keywords = {key: _plain(item, depth + 1, budget) for key, item in value.keywords.items()}
    head, _, name = value.qualified.rpartition(".")
    made = {
        "class": name,
        "module": head.removeprefix(libraries.UNRESOLVED).lstrip("."),
        "positional": [p[0] for p in positional],
        "arguments": {key: p[0] for key, p in keywords.items()},
    }
    return made, True, all(p[1] and p[2] for p in [*positional, *keywords.values()])


def known(value: Abstract, node: ast.expr, source: Source, keyword: ast.keyword | None = None) -> Known:
    """The fact that ``node``, which stands for ``value``, tells."""
    span = source.span(node)
    text = source.excerpt(span)
    alternatives: list[Any] = []
    if isinstance(value, Either):
        for choice in value.choices:
            json, certain, _ = plain(choice)
            if not certain:
                alternatives = []
                break
            alternatives.append(json)
        json, certain, literal = None, False, False
    else:
        json, certain, literal = plain(value)
    if isinstance(value, Ref):
        certain = False
    written = not isinstance(node, ast.Name)
    if isinstance(value, Named) and libraries.last(value.qualified) != text.rsplit(".", 1)[-1]:
        written = False
    certainty: Certainty = ("literal" if literal and written else "derived") if certain else "unknown"
    return Known(
        value=json,
        certainty=certainty,
        text=text if len(text) <= MAX_EXCERPT else text[:MAX_EXCERPT] + "…",
        line=node.lineno,
        span=span,
        keyword=source.span(keyword) if keyword is not None and keyword.arg else None,
        alternatives=tuple(alternatives),
    )


def default(value: Any) -> Known:
    """What applies because nothing is written."""
    return Known(value=value, certainty="default")
