"""A private folder for the life of the server. What a killed server left behind is removed by the next one."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: a folder in use cannot be removed there, so no lock is needed
    fcntl = None  # type: ignore[assignment]

PREFIX = "oom-doctor-mcp-"
_LOCK = "in-use"


class Scratch:
    """A folder that only this user can read, held by a lock that dies with the process, whatever kills it."""

    def __init__(self, parent: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        if fcntl is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def new(self) -> Path:
        """A fresh folder for one job."""
        return Path(tempfile.mkdtemp(prefix="job-", dir=self.folder))

    def close(self) -> None:
        """Removes everything."""
        os.close(self._lock)
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep(parent: Path | None = None) -> list[Path]:
    """Removes the folders of this user's servers that are gone, and says which."""
    if fcntl is None:
        return []
    removed = []
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # its server is alive
        else:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
        finally:
            os.close(lock)
    return removed
