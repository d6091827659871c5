"""Statements under a condition: what comes instead of one, and when the whole condition goes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


def vacate(draft: Draft, statement: ast.stmt) -> bool:
    """A statement that goes is alone in its block: what places the pipeline from now on may take its place.

    Not where another branch stands beside that block: what has to hold for both does not go into one of them.
    """
    parent = draft.tree.parents[statement]
    body = draft.tree.body_of(statement)
    if draft.vacant is not None or len(body) != 1 or isinstance(parent, ast.Module):
        return False
    if isinstance(parent, ast.If) and (parent.orelse or _is_elif(draft, parent)):
        return False
    draft.vacant = statement
    return True


def divided(draft: Draft, statement: ast.stmt) -> bool:
    """The statement runs in one branch and not in the other, while the pipeline is loaded for both."""
    if draft.load is None:
        return False
    body = draft.tree.body_of(draft.load)
    node: ast.AST | None = statement
    while node is not None and not any(node is s for s in body):
        node = draft.tree.parents.get(node)
        if isinstance(node, ast.If) and (node.orelse or _is_elif(draft, node)):
            return True
    return False


def halved(draft: Draft, statement: ast.stmt) -> bool:
    """The statement stands in one branch, and something of another branch of that condition goes."""
    node: ast.AST | None = draft.tree.parents.get(statement)
    while isinstance(node, ast.If):
        inside = set(ast.walk(node))
        if node.orelse and any(s in inside for s in draft.removed):
            return divided(draft, statement)
        node = draft.tree.parents.get(node)
    return False


def collapse(draft: Draft) -> None:
    """A condition all of whose branches lose everything goes as a whole."""
    for node in list(draft.tree.nodes(ast.If)):
        assert isinstance(node, ast.If)
        leaves = None if _is_elif(draft, node) or not node.orelse else _leaves(draft, node)
        if leaves:
            draft.removed[node] = draft.removed[leaves[0]]
            for leaf in leaves:
                del draft.removed[leaf]


def _leaves(draft: Draft, node: ast.If) -> list[ast.stmt] | None:
    """The statements in the branches when all of them go and asking the condition does nothing; else None."""
    if not _is_plain(node.test):
        return None
    found: list[ast.stmt] = []
    for statement in (*node.body, *node.orelse):
        below = _leaves(draft, statement) if isinstance(statement, ast.If) and _is_elif(draft, statement) else None
        if statement in draft.removed:
            found.append(statement)
        elif below:
            found += below
        else:
            return None
    return found


def _is_plain(test: ast.expr) -> bool:
    """Names, attributes, comparisons, and questions such as ``torch.cuda.is_available()``."""
    calls = (n for n in ast.walk(test) if isinstance(n, ast.Call | ast.NamedExpr | ast.Await))
    return all(isinstance(n, ast.Call) and ast.unparse(n.func).endswith("is_available") for n in calls)


def _is_elif(draft: Draft, node: ast.If) -> bool:
    parent = draft.tree.parents.get(node)
    return isinstance(parent, ast.If) and any(node is s for s in parent.orelse)
