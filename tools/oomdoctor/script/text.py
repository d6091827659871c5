"""Source text and places in it: bytes to text, and the syntax tree's byte offsets to character columns."""

from __future__ import annotations

import ast
import codecs
import io
import re
import tokenize
from collections.abc import Callable

from oomdoctor.errors import NotPython, UnreadableFile
from oomdoctor.values import Span

MAX_CHARACTERS = 4_000_000
_NEWLINE = re.compile(r"\r\n|\r|\n")
_PYTHON2 = re.compile(r"Missing parentheses in call|multiple exception types must be parenthesized|backquote|<>")
# What the tree holds always has a line and a column; the base class just does not say so.
Located = ast.expr | ast.stmt | ast.keyword | ast.excepthandler | ast.arg


def decode(data: bytes, name: str = "the script") -> tuple[str, str]:
    """Text of a Python file without its byte order mark, and the name of its encoding (``utf-8-sig`` with a mark).

    Raises :class:`UnreadableFile` when the bytes are not text in the encoding that the file declares.
    """
    if data[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE) or data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise UnreadableFile(f"{name} is UTF-16 or UTF-32 text, which Python does not read. Save it as UTF-8.")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except SyntaxError as error:
        raise UnreadableFile(f"{name}: {error.msg}. Save it as UTF-8, or correct its `# -*- coding` line.") from error
    except (UnicodeDecodeError, LookupError) as error:
        raise UnreadableFile(f"{name} is not text ({error}). Hand over the Python source, saved as UTF-8.") from error
    return text, encoding


def parse(text: str, name: str = "the script", place: Callable[[int], str] = "line {}".format) -> ast.Module:
    """The syntax tree. ``place`` puts a line number into words.

    Raises :class:`NotPython` with line and column, :class:`UnreadableFile` for text that is too large.
    """
    if len(text) > MAX_CHARACTERS:
        raise UnreadableFile(
            f"{name} has {len(text)} characters; scripts up to {MAX_CHARACTERS} are read. "
            "Hand over only the file that loads and calls the pipeline."
        )
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise NotPython(_explain(error, text, f"{name}, {place(error.lineno or 1)}")) from error
    except (RecursionError, MemoryError) as error:
        raise NotPython(
            f"{name}: an expression or block is nested too deeply for Python's own parser. "
            "Hand over only the part that loads and calls the pipeline."
        ) from error
    except ValueError as error:  # null bytes on older interpreters, lone surrogates
        raise NotPython(f"{name} is not Python source: {error}. Hand over the script as plain text.") from error


def _explain(error: SyntaxError, text: str, place: str) -> str:
    where = f"{place}, column {error.offset or 1}: {error.msg}."
    if _PYTHON2.search(error.msg or ""):
        return f"{where} This looks like Python 2; diffusers needs Python 3. Convert it (`2to3 -w FILE`) and try again."
    if "nested parentheses" in (error.msg or "") or "levels of indentation" in (error.msg or ""):
        return f"{where} Python itself cannot run this; hand over the part that loads and calls the pipeline."
    if re.search(r"^\s*(>>>|\.\.\.) ", text, re.MULTILINE):
        return f"{where} It looks like a copied console session: remove the `>>>` and `...` in front of the lines."
    if re.search(r"^\s*[%!]\w", text, re.MULTILINE):
        return f"{where} Lines with `!` or `%` belong to a notebook: hand over the .ipynb file itself, or remove them."
    return f"{where} Correct the script, or hand over the file that really ran."


class Source:
    """A text with its lines, to turn nodes of the tree into spans and excerpts. Lines end as Python's do."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts = [0, *(m.end() for m in _NEWLINE.finditer(text))]
        self._ascii = text.isascii()

    def _column(self, line: int, byte_offset: int) -> int:
        """Column in characters; the tree counts UTF-8 bytes."""
        if self._ascii:
            return byte_offset
        start = self.starts[line - 1]
        # A character has at least one byte, so the first `byte_offset` characters are enough to look at.
        head = self.text[start : start + byte_offset].encode("utf-8", "surrogatepass")[:byte_offset]
        return len(head.decode("utf-8", "ignore"))

    def span(self, node: Located) -> Span:
        """Where the node stands; parentheses around it are not part of it."""
        end_line = node.end_lineno or node.lineno
        end = node.end_col_offset if node.end_col_offset is not None else node.col_offset
        return Span(
            line=node.lineno,
            column=self._column(node.lineno, node.col_offset),
            end_line=end_line,
            end_column=self._column(end_line, end),
        )

    def excerpt(self, span: Span) -> str:
        """The text of a span."""
        return self.text[self.starts[span.line - 1] + span.column : self.starts[span.end_line - 1] + span.end_column]

    def has_lines_to_itself(self, statement: ast.stmt | None) -> bool:
        """Nothing but white space and a comment stands beside the statement on its lines."""
        if statement is None:
            return False
        span = self.span(statement)
        before = self.text[self.starts[span.line - 1] :][: span.column]
        after = _NEWLINE.split(self.text[self.starts[span.end_line - 1] + span.end_column :][:400], maxsplit=1)[
            0
        ].strip()
        return not before.strip() and (not after or after.startswith("#"))
