"""Writing a file that a person asked for: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from oomdoctor.errors import UnreadableFile


@contextmanager
def finished_file(path: Path, option: str) -> Iterator[str]:
    """The name of a temporary file beside ``path`` (same ending) that takes its place when the block ends well.

    Raises :class:`UnreadableFile` when the folder cannot be written to; ``option`` names what to change.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    except OSError as error:
        raise UnreadableFile(
            f"{path} cannot be written ({error.strerror}). Give {option} a path in a writable folder."
        ) from None
    os.close(handle)
    try:
        yield name
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def write_bytes(path: Path, option: str, write: Callable[[str], None]) -> None:
    """Let ``write(name)`` fill the file that becomes ``path``."""
    with finished_file(path, option) as name:
        write(name)
