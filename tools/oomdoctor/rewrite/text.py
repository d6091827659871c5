"""Source text and positions in it: lines and columns become offsets, and the script's own habits are read off.

Offsets are in characters of the whole text, byte-order mark included. Lines end where Python's tokenizer ends them:
at ``\\n``, ``\\r\\n`` or ``\\r``, and nowhere else.
"""

from __future__ import annotations

import ast
import re
import tokenize
from functools import cached_property

from oomdoctor.values import Span

_LINE_END = re.compile(r"\r\n|\r|\n")
BOM = "\ufeff"


class Text:
    """A script as text."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.start = 1 if source.startswith(BOM) else 0
        """Offset of the first character that is Python."""
        ends = list(_LINE_END.finditer(source))
        self._starts = [self.start, *(m.end() for m in ends)]
        self._ends = [*(m.start() for m in ends), len(source)]
        kinds = [m.group() for m in ends]
        self.newline = max(set(kinds), key=kinds.count) if kinds else "\n"

    def parse(self) -> ast.Module:
        """The syntax tree; the reader has parsed the same text before, so it is valid Python."""
        return ast.parse(self.source[self.start :])

    def offset(self, line: int, column: int) -> int:
        """Offset of a position: 1-based line, 0-based column in characters."""
        return self._starts[line - 1] + column

    def span(self, span: Span) -> tuple[int, int]:
        """Start and end offset."""
        return self.offset(span.line, span.column), self.offset(span.end_line, span.end_column)

    def node(self, node: ast.expr | ast.stmt | ast.keyword | ast.alias) -> tuple[int, int]:
        """Start and end offset of a syntax node (``ast`` counts columns in UTF-8 bytes)."""
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return self._from_bytes(node.lineno, node.col_offset), self._from_bytes(end_line, end_column)

    def _from_bytes(self, line: int, column: int) -> int:
        text = self.source[self._starts[line - 1] : self._ends[line - 1]]
        if text.isascii():
            return self._starts[line - 1] + column
        return self._starts[line - 1] + len(text.encode("utf-8")[:column].decode("utf-8", "replace"))

    def line_of(self, offset: int) -> int:
        """1-based number of the line that holds ``offset``."""
        low, high = 0, len(self._starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._starts[middle] <= offset else (low, middle)
        return low + 1

    def line_start(self, offset: int) -> int:
        return self._starts[self.line_of(offset) - 1]

    def line_end(self, offset: int) -> int:
        """End of the text of the line, before its line break."""
        return self._ends[self.line_of(offset) - 1]

    def next_line(self, offset: int) -> int:
        """Start of the following line; the end of the text on the last one."""
        line = self.line_of(offset)
        return self._starts[line] if line < len(self._starts) else len(self.source)

    def is_last_line(self, offset: int) -> bool:
        return self.line_of(offset) == len(self._starts)

    def indent(self, offset: int) -> str:
        """White space that begins the line, as written (tabs stay tabs)."""
        line = self.source[self.line_start(offset) : self.line_end(offset)]
        return line[: len(line) - len(line.lstrip(" \t\f"))]

    @cached_property
    def inside_strings(self) -> frozenset[int]:
        """Numbers of the lines that begin inside of a string: their indentation is a part of it."""
        rows = (self.source[start:end] + "\n" for start, end in zip(self._starts, self._ends, strict=True))
        found: set[int] = set()
        try:
            for token in tokenize.generate_tokens(lambda: next(rows, "")):
                if token.start[0] < token.end[0] and "STRING" in tokenize.tok_name[token.type]:
                    found |= set(range(token.start[0] + 1, token.end[0] + 1))
        except (tokenize.TokenError, IndentationError):  # valid for the parser is valid here; whatever else, touch less
            return frozenset(range(1, len(self._starts) + 1))
        return frozenset(found)

    @property
    def indent_unit(self) -> str:
        """One level of indentation as this script writes it."""
        for start, end in zip(self._starts, self._ends, strict=True):
            line = self.source[start:end]
            if line.startswith("\t"):
                return "\t"
            if line.startswith("  ") and line.strip() and not line.lstrip().startswith("#"):
                width = len(line) - len(line.lstrip(" "))
                return " " * (width if width in (2, 4, 8) else 4)
        return "    "

    @property
    def quote(self) -> str:
        """The quotation mark this script prefers."""
        return "'" if self.source.count("'") > self.source.count('"') else '"'
