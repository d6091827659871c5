"""Putting statements into a block (``with``, ``for``) and taking them out again: only their indentation changes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft
    from oomdoctor.rewrite.text import Text

HEAD, INDENT = 20_000, 20_001
"""Ranks at the statement's line: the block begins below whatever else is written above the statement."""


def whole_lines(draft: Draft, statement: ast.stmt) -> bool:
    """The statement shares no line with another one, so that its lines can be indented."""
    end = draft.text.node(statement)[1]
    rest = draft.text.source[end : draft.text.line_end(end)].strip()
    return draft.begins_line(statement) and (not rest or rest.startswith("#"))


def indent(draft: Draft, statement: ast.stmt) -> None:
    """One level deeper; lines inside of strings stay as they are."""
    for position in _code_lines(draft.text, statement):
        draft.edit(position, position, draft.text.indent_unit, "", rank=INDENT)


def dedent(draft: Draft, block: ast.stmt, first: ast.stmt, width: int) -> None:
    """``width`` characters of indentation less, from the statement ``first`` to the end of the block that holds it."""
    text = draft.text
    begin = text.line_of(text.node(first)[0])
    for position in _code_lines(text, block):
        if text.line_of(position) >= begin:
            line = text.source[position : text.line_end(position)]
            blank = len(line) - len(line.lstrip(" \t"))
            draft.edit(position, position + min(width, blank), "", "")


def outer_indent(draft: Draft, statement: ast.stmt) -> str:
    """The indentation that the statement will have: blocks around it that are being opened count no more."""
    found = draft.text.indent(draft.text.node(statement)[0])
    current = draft.tree.parents.get(statement)
    while current is not None:
        width = draft.opened.get(current, 0)
        found = found[: len(found) - width] if width else found
        current = draft.tree.parents.get(current)
    return found


def wrap(draft: Draft, statement: ast.stmt, manager: str, reason: str) -> bool:
    """``with manager:`` around the statement; False where the statement shares its line."""
    if not whole_lines(draft, statement):
        return False
    at = draft.text.line_start(draft.text.node(statement)[0])
    head = f"{outer_indent(draft, statement)}with {manager}:{draft.text.newline}"
    draft.edit(at, at, head, reason, rank=HEAD)
    indent(draft, statement)
    return True


def unwrap(draft: Draft, block: ast.With, manager: ast.expr, reason: str) -> None:
    """The block goes on without that context manager; without any left, its statements stand where it stood."""
    text = draft.text
    index = next(i for i, item in enumerate(block.items) if item.context_expr is manager)
    if len(block.items) > 1:
        spans = [_item(text, item) for item in block.items]
        start, end = spans[index]
        draft.edit(*((start, spans[index + 1][0]) if index == 0 else (spans[index - 1][1], end)), "", reason)
        return
    first, inner = text.node(block)[0], text.node(block.body[0])[0]
    if text.line_of(first) == text.line_of(inner):  # with x: y
        draft.edit(first, inner, "", reason)
        return
    width = len(text.indent(inner)) - len(text.indent(first))
    draft.edit(text.line_start(first), text.line_start(inner), "", reason)
    dedent(draft, block, block.body[0], width)
    draft.opened[block] = width


def _item(text: Text, item: ast.withitem) -> tuple[int, int]:
    end = text.node(item.optional_vars)[1] if item.optional_vars is not None else text.node(item.context_expr)[1]
    return text.node(item.context_expr)[0], end


def _code_lines(text: Text, statement: ast.stmt) -> list[int]:
    """Where the lines of a statement begin: those that hold something and do not begin inside of a string."""
    start, end = text.node(statement)
    lines = (n for n in range(text.line_of(start), text.line_of(end) + 1) if n not in text.inside_strings)
    offsets = [text.offset(n, 0) for n in lines]
    return [at for at in offsets if text.source[at : text.line_end(at)].strip()]
