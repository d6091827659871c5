"""Tests of branches: ``if __name__``, and the patterns of ``match``."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from oomdoctor.script import folding
from oomdoctor.script.domain import Abstract, Const
from oomdoctor.script.expressions import evaluate

if TYPE_CHECKING:
    from oomdoctor.script.interpreter import Interpreter


def is_main_guard(test: ast.expr) -> bool:
    """``__name__ == "__main__"``: always true for a script, not worth a mention."""
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def matches(reader: Interpreter, pattern: ast.pattern, subject: Abstract) -> bool | None:
    """Whether a ``case`` applies; None when that is not known."""
    if isinstance(pattern, ast.MatchValue):
        return folding.truth(folding.compare(ast.Eq(), subject, evaluate(reader, pattern.value)))
    if isinstance(pattern, ast.MatchSingleton):
        return subject.value is pattern.value if isinstance(subject, Const) else None
    if isinstance(pattern, ast.MatchOr):
        answers = [matches(reader, p, subject) for p in pattern.patterns]
        return True if True in answers else None if None in answers else False
    if isinstance(pattern, ast.MatchAs):
        return True if pattern.pattern is None else matches(reader, pattern.pattern, subject)
    return None


def captured(pattern: ast.pattern) -> list[str]:
    """Names that a pattern binds."""
    names = []
    for node in ast.walk(pattern):
        if isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            names.append(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            names.append(node.rest)
    return names
