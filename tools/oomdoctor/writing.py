"""The one place that writes a user's file: whole or not at all, with a copy of what stood there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from oomdoctor.errors import UnreadableFile


def write_script(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` by renaming a finished file; an existing one is kept as ``path.bak``.

    Raises :class:`UnreadableFile` when the folder cannot be written to; nothing is changed then.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UnreadableFile(
            f"{path} cannot be written ({error.strerror}). Give --write a path in a writable folder."
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        if path.exists():
            shutil.copy2(path, path.with_name(path.name + ".bak"))
            shutil.copymode(path, temporary)
        else:
            os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
