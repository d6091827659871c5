"""Edits of one call's arguments, in the layout the call already has: one line, or one argument per line."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from oomdoctor.rewrite.text import Text

Change = tuple[int, int, str]


def find(call: ast.Call, name: str) -> ast.keyword | None:
    """The keyword argument of that name."""
    return next((k for k in call.keywords if k.arg == name), None)


def has_double_star(call: ast.Call) -> bool:
    """``**kwargs`` is passed: which keywords arrive cannot be told from the text."""
    return any(k.arg is None for k in call.keywords)


def changes(text: Text, call: ast.Call, wanted: Mapping[str, str | None]) -> list[tuple[str, Change]]:
    """(keyword, change) pairs after which the call passes ``name=value`` for each, and not those that are None."""
    gone = [k for k in call.keywords if k.arg is not None and wanted.get(k.arg, "") is None]
    found: list[tuple[str, Change]] = []
    new = [name for name, value in wanted.items() if value is not None and find(call, name) is None]
    # What comes takes the place of what goes: one line changes instead of two.
    exchanged = dict(zip(new, list(gone), strict=False))
    for name, keyword in exchanged.items():
        start, end = text.node(keyword)
        found.append((name, (start, end, _indented(text, f"{name}={wanted[name]}", text.indent(start)))))
        gone.remove(keyword)
    added = [name for name in new if name not in exchanged]
    rows = [f"{name}={wanted[name]}" for name in added]
    found += [(added[0], c) for c in add_keywords(text, call, rows, gone)]
    done = {*new, *(k.arg for k in exchanged.values())}
    for name, value in wanted.items():
        present = find(call, name)
        if name in done or present is None:
            continue
        if value is None:
            found += [(name, c) for c in remove_keyword(text, call, name, gone)]
        else:
            start, end = text.node(present.value)
            if text.source[start:end] != (value := _indented(text, value, text.indent(start))):
                found.append((name, (start, end, value)))
    return found


def add_keywords(text: Text, call: ast.Call, written: Sequence[str], gone: Sequence[ast.keyword] = ()) -> list[Change]:
    """Changes that append ``written`` (each ``name=value``) to the arguments; those in ``gone`` are being taken out."""
    if not written:
        return []
    close = text.node(call)[1] - 1
    together = _indented(text, ", ".join(written), text.indent(text.node(call)[0]))
    arguments = [a for a in _arguments(call) if a not in gone]
    if not arguments:
        at = text.node(gone[0])[0] if gone else close
        return [(at, at, together)]
    last = max(text.node(a)[1] for a in arguments)
    following = min((text.node(g)[0] for g in gone if text.node(g)[0] > last), default=close)
    tokens = _tokens(text.source[last:following])
    end = last + max((stop for kind, _, stop in tokens if kind != "#"), default=0)
    trailing_comma = any(kind == "," for kind, _, _ in tokens)
    if text.line_of(following) == text.line_of(end) or text.source[text.line_start(close) : close].strip():
        if following != close:
            return [(last, last, f", {together}")]
        return [(end, end, f" {together}," if trailing_comma else f", {together}")]
    first = min(text.node(a)[0] for a in arguments)
    room = len(text.source[text.line_start(end) : text.line_end(end)]) + len(together) <= 118
    if not trailing_comma and text.line_of(first) == text.line_of(end) and room:
        return [(end, end, f", {together}")]
    below = text.line_of(text.node(call.func)[1])
    own_line = min((text.node(a)[0] for a in arguments if text.line_of(text.node(a)[0]) > below), default=None)
    indent = text.indent(own_line) if own_line is not None else text.indent(close) + text.indent_unit
    line_end = text.line_end(end)
    rows = f",{text.newline}{indent}".join(_indented(text, w, indent) for w in written)
    new_lines = f"{text.newline}{indent}{rows}{',' if trailing_comma else ''}"
    if trailing_comma:
        return [(line_end, line_end, new_lines)]
    if line_end == end:
        return [(end, end, f",{new_lines}")]
    return [(end, end, ","), (line_end, line_end, new_lines)]


def remove_keyword(text: Text, call: ast.Call, name: str, gone: Sequence[ast.keyword] = ()) -> list[Change]:
    """Changes that take ``name=...`` out, with its comma and its line when it had one to itself.

    Others in ``gone`` are being taken out as well.
    """
    present = find(call, name)
    if present is None:
        return []
    start, end = text.node(present)
    close = text.node(call)[1] - 1
    others = sorted(text.node(a) for a in _arguments(call) if a is not present)
    comma = next((end + stop for kind, _, stop in _tokens(text.source[end:close]) if kind == ","), None)
    before = text.source[text.line_start(start) : start]
    stop = comma or end
    rest = text.source[stop : text.line_end(stop)]
    if not before.strip() and (not rest.strip() or rest.lstrip().startswith("#")):
        line = (text.line_start(start), text.next_line(stop), "")
        left = (text.node(a) for a in _arguments(call) if a not in gone and a is not present)
        preceding = [last for first, last in left if first < start]
        if comma is None and preceding:
            return [*_comma(text, max(preceding), start), line]
        return [line]
    staying = [text.node(a) for a in _arguments(call) if a not in gone and a is not present]
    following = [first for first, _ in others if first > start]
    preceding = [last for _, last in staying if last < start]
    if following and (not preceding or any(first > start for first, _ in staying)):
        return [(start, min(following), "")]
    return [(max(preceding), end, "")] if preceding else [(start, stop, "")]


def _indented(text: Text, written: str, indent: str) -> str:
    """The further lines of a value stand below the line where it begins."""
    return written.replace("\n", text.newline + indent)


def _comma(text: Text, start: int, end: int) -> list[Change]:
    """The comma between two arguments goes with the last one where that has none of its own."""
    found = (first for kind, first, _ in _tokens(text.source[start:end]) if kind == ",")
    return [(start + first, start + first + 1, "") for first in found][:1]


def _arguments(call: ast.Call) -> list[ast.expr | ast.keyword]:
    """All of them; ``**x`` counts from its expression."""
    return [*call.args, *(k if k.arg is not None else k.value for k in call.keywords)]


def _tokens(source: str) -> list[tuple[str, int, int]]:
    """What stands between the last argument and the closing bracket: ``)``, ``,`` and comments, as (kind, start, end)."""
    found: list[tuple[str, int, int]] = []
    position = 0
    while position < len(source):
        character = source[position]
        if character == "#":
            end = position
            while end < len(source) and source[end] not in "\r\n":
                end += 1
            found.append(("#", position, end))
            position = end
        else:
            if character in "),":
                found.append((character, position, position + 1))
            position += 1
    return found
