"""Scripts and logs, as text or as a path, checked and read before anything else happens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oomdoctor.errors import InputError, UnreadableFile

from oomdoctor_mcp.confine import SCRIPT_SUFFIXES, Roots
from oomdoctor_mcp.params import MAX_LOG, MAX_NOTEBOOK_BYTES, MAX_SCRIPT

if TYPE_CHECKING:
    from oomdoctor.script import SourceFile

_PATH_LIKE = re.compile(r"[^\n\r()=\[\]{}\"']{1,400}\.(py|ipynb|txt|log|out|err)", re.IGNORECASE)


@dataclass(frozen=True)
class ScriptInput:
    """A script as it was handed over."""

    content: bytes
    path: Path | None
    """The file it came from, None when it came as text."""
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name for the copy that children read: it decides whether this is a notebook."""
        if self.path is not None:
            return f"script{self.path.suffix.lower()}"
        return "script.ipynb" if self.content.lstrip()[:1] == b"{" and b'"cells"' in self.content else "script.py"

    def copy_to(self, folder: Path) -> Path:
        """A copy in ``folder``, so that what was checked is what is read."""
        copy = folder / self.name
        copy.write_bytes(self.content)
        return copy

    def read(self, folder: Path) -> SourceFile:
        """The script, parsed. Raises :class:`~oomdoctor.errors.NotPython` and its like."""
        from oomdoctor.script import read_file

        return read_file(self.copy_to(folder))


def script(roots: Roots, text: str, path: str) -> ScriptInput:
    """The script that a tool was given.

    Raises :class:`InputError` when there is none or two, and what :meth:`Roots.read` raises.
    """
    warnings: tuple[str, ...] = ()
    if text and not path and _is_path(text, SCRIPT_SUFFIXES):
        text, path = "", text.strip()
        warnings = (f"script held a path, so {path} was read; the argument for paths is script_path.",)
    if bool(text.strip()) == bool(path.strip()):
        raise InputError(
            "Give the script once: either its text as script or its path as script_path."
            if text.strip()
            else "No script was given. Pass its whole text as script, or its path as script_path."
        )
    if not path:
        return ScriptInput(text.encode("utf-8", "surrogatepass"), None, warnings)
    limit = MAX_NOTEBOOK_BYTES if path.lower().endswith(".ipynb") else MAX_SCRIPT
    found, content = roots.read(path, suffixes=SCRIPT_SUFFIXES, max_bytes=limit)
    return ScriptInput(content, found, warnings)


def log(roots: Roots, text: str, path: str) -> tuple[str, tuple[str, ...]]:
    """The traceback that a tool was given, and warnings; empty text when none was. Raises as :func:`script` does."""
    warnings: tuple[str, ...] = ()
    if text and not path and _is_path(text, (".txt", ".log", ".out", ".err")):
        text, path = "", text.strip()
        warnings = (f"traceback held a path, so {path} was read; the argument for paths is traceback_path.",)
    if text.strip() and path.strip():
        raise InputError("Give the traceback once: either as text or as traceback_path.")
    if not path.strip():
        return text, warnings
    _, content = roots.read(path, suffixes=None, max_bytes=MAX_LOG)
    if b"\x00" in content[:4096] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableFile(f"{path} is not a text file. Name the log that holds the traceback.")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    return content.decode(encoding, "replace"), warnings


def _is_path(text: str, suffixes: tuple[str, ...]) -> bool:
    text = text.strip()
    return bool(_PATH_LIKE.fullmatch(text)) and text.lower().endswith(suffixes) and "import " not in text
