"""The way in: bytes, text or a file, to a Script."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from oomdoctor.errors import UnreadableFile
from oomdoctor.script import finish, notebook
from oomdoctor.script.interpreter import Interpreter
from oomdoctor.script.text import Source, decode, parse
from oomdoctor.values import Known, Script

MAX_FILE_BYTES = 64 << 20
"""Notebooks carry their pictures; the code in them may be as long as any other script."""


@dataclass(frozen=True)
class SourceFile:
    """A file that was read. Spans of ``script`` count in ``text``."""

    path: Path
    text: str
    """The code without byte order mark; the cells of a notebook joined, see :mod:`oomdoctor.script.notebook`."""
    script: Script
    encoding: str
    original: bytes

    def encode(self, text: str) -> bytes:
        """The bytes of the file with ``text`` (an edited version of ``self.text``) as its code.

        Encoding, byte order mark and, in a notebook, everything but the code stay as they are.
        Raises :class:`UnreadableFile` when the text cannot be written in the encoding of the file.
        """
        if self.script.is_notebook:
            return notebook.replace_code(self.original, text)
        try:
            return text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise UnreadableFile(
                f"{self.path}: the new text does not fit its encoding {self.encoding}: {error}"
            ) from error


def read_script(source: str | bytes, *, path: str | None = None) -> Script:
    """What a script does, as far as its text tells. ``path`` only names it (``.ipynb``: a notebook).

    Raises :class:`oomdoctor.errors.NotPython` with line and column when it does not parse, and
    :class:`oomdoctor.errors.UnreadableFile` when it is not text, too large or a broken notebook.
    """
    _, script, _ = _read(source, path)
    return script


def read_file(path: str | Path) -> SourceFile:
    """Read a ``.py`` file or a notebook.

    Raises as :func:`read_script`, and :class:`UnreadableFile` when the file is missing, a folder or not readable.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UnreadableFile(f"{path} is a folder. Name the script in it that loads and calls the pipeline.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UnreadableFile(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB. Hand over the script alone.")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UnreadableFile(f"{path} does not exist. Check the path, or run from the folder of the script.") from error
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{path} cannot be read ({error}). Check its permissions.") from error
    text, script, encoding = _read(data, str(path))
    return SourceFile(path, text, script, encoding, data)


def _read(source: str | bytes, path: str | None) -> tuple[str, Script, str]:
    name = path or "the script"
    data = source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass")
    encoding = "utf-8"
    environment: dict[str, str] = {}
    is_notebook = notebook.is_notebook(data, path)
    if is_notebook:
        text, environment = notebook.code(data, name)
    elif isinstance(source, bytes):
        text, encoding = decode(data, name)
    else:
        text = source.removeprefix("\ufeff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the user's strings are none of our business
        in_words = partial(notebook.place, text) if is_notebook else "line {}".format
        tree = parse(text, name, in_words)
    reader = Interpreter(tree, Source(text))
    reader.environment = {key: Known(value=value, certainty="literal") for key, value in environment.items()}
    reader.run()
    script = finish.script(reader, path, hashlib.sha256(data).hexdigest(), is_notebook=is_notebook)
    return text, script, encoding
