"""How the result of a call is taken: whether the call can be repeated for fewer pictures and these be joined."""

from __future__ import annotations

import ast

_PLAIN = (ast.Call, ast.Subscript, ast.Attribute, ast.keyword, ast.Tuple, ast.List, ast.Starred, ast.BinOp, ast.Slice)
"""What may stand around the pictures: evaluated once, and always."""
_SIMPLE = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return)


def pictures_of(statement: ast.stmt | None, call: ast.Call) -> ast.Attribute | None:
    """``call.images`` where that is taken once, unconditionally, in a simple statement; None otherwise."""
    if not isinstance(statement, _SIMPLE) or statement.value is None:
        return None
    path = _path(statement.value, call)
    if len(path) < 2:
        return None
    taken = path[-2]
    around = path[:-2]
    if not isinstance(taken, ast.Attribute) or taken.attr != "images" or not all(isinstance(n, _PLAIN) for n in around):
        return None
    lines = {call.end_lineno, taken.end_lineno}  # `pipe(...)\n.images` holds together by brackets around it only
    return taken if len(lines) == 1 else None


def names_of(statement: ast.stmt | None, call: ast.Call) -> tuple[str, ...]:
    """``a, b`` of ``a, b = call(...)`` or ``call(...).to_tuple()``, ``a`` of ``a = call(...).attribute``; empty where it
    is not plainly assigned."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return ()
    if statement.value is not call and attribute_of(statement, call) is None and not _as_tuple(statement.value, call):
        return ()
    target = statement.targets[0]
    names = list(target.elts) if isinstance(target, ast.Tuple | ast.List) else [target]
    return tuple(n.id for n in names if isinstance(n, ast.Name)) if all(isinstance(n, ast.Name) for n in names) else ()


def attribute_of(statement: ast.stmt | None, call: ast.Call) -> str | None:
    """``attribute`` of ``a = call(...).attribute``."""
    value = statement.value if isinstance(statement, ast.Assign) else None
    return value.attr if isinstance(value, ast.Attribute) and value.value is call else None


def _as_tuple(value: ast.expr, call: ast.Call) -> bool:
    """``call(...).to_tuple()``."""
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Attribute) or value.func.attr != "to_tuple":
        return False
    return value.func.value is call and not value.args and not value.keywords


def _path(node: ast.AST, goal: ast.AST) -> list[ast.AST]:
    """The nodes from ``node`` down to ``goal``, both included; empty when it is not in there."""
    waiting: list[tuple[ast.AST, tuple[ast.AST, ...]]] = [(node, ())]
    while waiting:
        current, above = waiting.pop()
        if current is goal:
            return [*above, current]
        waiting += [(child, (*above, current)) for child in ast.iter_child_nodes(current)]
    return []
