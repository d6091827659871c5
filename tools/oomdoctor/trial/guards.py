"""Guards against accidents while a user's script runs virtually: it writes to scratch, starts nothing, calls nobody.

They are Python, so they stop accidents and not attacks; SECURITY.md says which promises hold only in a sandbox.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from typing import Any

from oomdoctor.trial import savers
from oomdoctor.trial.overlay import Overlay


class Refused(PermissionError):
    """The script asked for something that a virtual run does not do."""


class Guards:
    """What the guards turned away, for the report."""

    def __init__(self, scratch: str) -> None:
        self.overlay = Overlay(scratch)
        self.saved = savers.Saved()

    def files(self) -> list[dict[str, Any]]:
        """What the script saved or wrote: path, what, bytes, and whether it is kept (in the scratch folder)."""
        written = [{"path": name[:400], "what": "file", "bytes": size, "kept": True} for name, size in self._written()]
        return self.saved.entries + written[: savers.KEPT_AT_MOST]

    def _written(self) -> list[tuple[str, int]]:
        """Files that hold what the script wrote into them."""
        return [(name, size) for name, size in self.overlay.sizes() if os.path.abspath(name) not in self.saved.paths]

    def notes(self) -> list[str]:
        notes = []
        if self.saved.entries:
            notes.append("not written in a virtual run: " + _listed([e["path"] for e in self.saved.entries]))
        if written := [name for name, _ in self._written()]:
            notes.append("written to a scratch folder instead: " + _listed(written))
        if self.overlay.kept:
            notes.append("not removed, renamed or changed in a virtual run: " + _listed(list(self.overlay.kept)))
        return notes


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def install(scratch: str, *, allow_network: bool = False, allow_processes: bool = False) -> Guards:
    """Put the guards in place for the rest of this process."""
    guards = Guards(scratch)
    temporary = os.path.join(scratch, "tmp")
    os.makedirs(temporary, exist_ok=True)
    for name in ("TMPDIR", "TEMP", "TMP"):
        os.environ[name] = temporary
    tempfile.tempdir = None
    savers.install(guards.saved)
    guards.overlay.install()
    if not allow_processes:
        _guard_processes()
    if not allow_network:
        _guard_network()
    return guards


_STARTERS = (
    "system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp", "execl", "execle", "execlp", "execlpe",
    "execv", "execve", "execvp", "execvpe", "spawnl", "spawnle", "spawnlp", "spawnlpe", "spawnv", "spawnve", "spawnvp",
    "spawnvpe", "startfile",
)  # fmt: skip


def _guard_processes() -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Refused(
            "a virtual run starts no other process; allow it with --allow-processes, or run the script with --real on a "
            "machine with a GPU"
        )

    class NoProcess(subprocess.Popen[Any]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            refuse()

        def __del__(self, *args: Any, **kwargs: Any) -> None:
            pass

    subprocess.Popen = NoProcess  # type: ignore[misc]
    for name in _STARTERS:
        if hasattr(os, name):
            setattr(os, name, refuse)
    try:
        import _posixsubprocess
    except ImportError:
        return
    _posixsubprocess.fork_exec = refuse  # multiprocessing's way


def _guard_network() -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Refused(
            "a virtual run has no network (what it would download is built from the model's configs); allow it with "
            "--allow-network"
        )

    make = socket.socket.__init__

    def only_given(self: Any, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        if fileno is None:
            refuse()
        make(self, family, type, proto, fileno)

    socket.socket.__init__ = only_given  # type: ignore[method-assign]
    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.socket.connect_ex = refuse  # type: ignore[method-assign]
    socket.create_connection = refuse
    socket.getaddrinfo = refuse
    socket.gethostbyname = refuse
