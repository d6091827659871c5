"""How much of the script an answer changes, in statements; formatting and comments do not count."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable

ALLOWED_FACTOR, ALLOWED_MORE = 2, 3


def changed_statements(original: str, answer: str) -> int:
    """Statements that were added plus statements that are gone; a changed one counts as both, once."""
    before, after = _statements(original), _statements(answer)
    return max((after - before).total(), (before - after).total())


def small_enough(original: str, answer: str, witnesses: Iterable[str]) -> bool:
    """At most twice the smallest witness and three more."""
    smallest = min((changed_statements(original, w) for w in witnesses), default=3)
    return changed_statements(original, answer) <= ALLOWED_FACTOR * smallest + ALLOWED_MORE


def _statements(source: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt):
            continue
        for name in ("body", "orelse", "finalbody", "handlers"):
            if isinstance(getattr(node, name, None), list):
                setattr(node, name, [])
        found[ast.dump(node)] += 1
    return found
