"""Edits of one call's arguments, in the layout the call already has: one line, or one argument per line."""

from __future__ import annotations

import ast
import io
import tokenize

from oomdoctor.rewrite.text import Text

Change = tuple[int, int, str]


def find(call: ast.Call, name: str) -> ast.keyword | None:
    """The keyword argument of that name."""
    return next((k for k in call.keywords if k.arg == name), None)


def has_double_star(call: ast.Call) -> bool:
    """``**kwargs`` is passed: which keywords arrive cannot be told from the text."""
    return any(k.arg is None for k in call.keywords)


def set_keyword(text: Text, call: ast.Call, name: str, value: str, after: str | None = None) -> list[Change]:
    """Changes that make the call pass ``name=value``."""
    present = find(call, name)
    if present is not None:
        start, end = text.node(present.value)
        return [] if text.source[start:end] == value else [(start, end, value)]
    return add_keyword(text, call, f"{name}={value}")


def add_keyword(text: Text, call: ast.Call, written: str) -> list[Change]:
    """Changes that append ``written`` (``name=value``) to the arguments."""
    close = text.node(call)[1] - 1
    arguments = _arguments(call)
    if not arguments:
        return [(close, close, written)] if not _comment_between(text, call, close) else [(close, close, f"{written}")]
    last = max(text.node(a)[1] for a in arguments)
    tokens = _tokens(text.source[last:close])
    end = last + max((stop for kind, _, stop in tokens if kind != "#"), default=0)
    trailing_comma = any(kind == "," for kind, _, _ in tokens)
    if text.line_of(close) == text.line_of(end) or text.source[text.line_start(close) : close].strip():
        return [(end, end, f" {written}," if trailing_comma else f", {written}")]
    first = min(text.node(a)[0] for a in arguments)
    room = len(text.source[text.line_start(end) : text.line_end(end)]) + len(written) <= 118
    if not trailing_comma and text.line_of(first) == text.line_of(end) and room:
        return [(end, end, f", {written}")]
    first_on_line = min(
        (text.node(a)[0] for a in arguments if text.line_of(text.node(a)[0]) > text.line_of(text.node(call.func)[1])),
        default=None,
    )
    indent = text.indent(first_on_line) if first_on_line is not None else text.indent(close) + text.indent_unit
    line_end = text.line_end(end)
    comma = "" if trailing_comma else ","
    new_line = f"{text.newline}{indent}{written}{',' if trailing_comma else ''}"
    if line_end == end:
        return [(end, end, comma + new_line)]
    return [*([(end, end, comma)] if comma else []), (line_end, line_end, new_line)]


def remove_keyword(text: Text, call: ast.Call, name: str) -> list[Change]:
    """Changes that take ``name=...`` out, with its comma and its line when it had one to itself."""
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
        return [(text.line_start(start), text.next_line(stop), "")]
    following = [first for first, _ in others if first > start]
    if following:
        return [(start, min(following), "")]
    preceding = [last for _, last in others if last < start]
    return [(max(preceding), end, "")] if preceding else [(start, stop, "")]


def _arguments(call: ast.Call) -> list[ast.expr | ast.keyword]:
    """All of them; ``**x`` counts from its expression."""
    return [*call.args, *(k if k.arg is not None else k.value for k in call.keywords)]


def _comment_between(text: Text, call: ast.Call, close: int) -> bool:
    return "#" in text.source[text.node(call.func)[1] : close]


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


def is_code(source: str) -> bool:
    """The text holds more than comments and blank lines."""
    ignored = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING, tokenize.ENDMARKER)
    return any(t.type not in ignored for t in tokenize.generate_tokens(io.StringIO(source).readline))
