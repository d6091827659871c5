"""Guards against accidents while a user's script runs virtually: it writes to scratch, starts nothing, calls nobody.

They are Python, so they stop accidents and not attacks; SECURITY.md says which promises hold only in a sandbox.
"""

from __future__ import annotations

import builtins
import io
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from oomdoctor.loading import hooks


class Guards:
    """What the guards turned away, for the report."""

    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.redirected: list[str] = []
        self.saved: list[str] = []

    def notes(self) -> list[str]:
        notes = []
        if self.saved:
            notes.append("not written in a virtual run: " + ", ".join(self.saved[:8]))
        if self.redirected:
            notes.append("written to a scratch folder instead: " + ", ".join(self.redirected[:8]))
        return notes


class Refused(PermissionError):
    """The script asked for something that a virtual run does not do."""


def install(scratch: str, script: str) -> Guards:
    """Put the guards in place for the rest of this process."""
    guards = Guards(scratch)
    _guard_open(guards)
    _guard_processes()
    _guard_network()
    hooks.after_import("PIL.Image", lambda module: _no_save(guards, module.Image, "save"))
    hooks.after_import("diffusers.utils.export_utils", lambda module: _no_exports(guards, module))
    hooks.after_import("imageio", lambda module: _quiet(guards, module, ("imwrite", "mimwrite", "mimsave", "imsave")))
    _guard_torch_save(guards)
    return guards


def _guard_open(guards: Guards) -> None:
    real = builtins.open

    def guarded(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, (str, bytes, os.PathLike)) and any(c in mode for c in "wax+"):
            path = os.path.abspath(os.fsdecode(file))
            if not path.startswith((os.path.dirname(guards.scratch), os.devnull)):
                name = os.fsdecode(file)
                if name not in guards.redirected:
                    guards.redirected.append(name)
                target = Path(guards.scratch, "written", os.path.relpath(path, "/"))
                target.parent.mkdir(parents=True, exist_ok=True)
                file = target
        return real(file, mode, *args, **kwargs)

    builtins.open = guarded
    io.open = guarded


def _guard_processes() -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Refused(
            "a virtual run starts no other process; run the script with --real on a machine with a GPU for that"
        )

    class NoProcess(subprocess.Popen[Any]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            refuse()

        def __del__(self, *args: Any, **kwargs: Any) -> None:
            pass

    subprocess.Popen = NoProcess  # type: ignore[misc]
    for name in ("system", "popen", "execv", "execve", "execvp", "posix_spawn", "fork"):
        if hasattr(os, name):
            setattr(os, name, refuse)


def _guard_network() -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Refused("a virtual run has no network; what it would download is built from the model's configs")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.socket.connect_ex = refuse  # type: ignore[method-assign]
    socket.create_connection = refuse


def _name(arguments: tuple[Any, ...]) -> str:
    return next((str(a) for a in arguments if isinstance(a, (str, os.PathLike))), "an open file")


def _no_save(guards: Guards, owner: Any, name: str) -> None:
    def save(self: Any, fp: Any = None, *args: Any, **kwargs: Any) -> None:
        guards.saved.append(f"{_name((fp,))} ({self.size[0]}x{self.size[1]})")

    setattr(owner, name, save)


def _no_exports(guards: Guards, module: Any) -> None:
    _quiet(guards, module, tuple(n for n in vars(module) if n.startswith("export_to_")))


def _quiet(guards: Guards, module: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(module, name):

            def export(*args: Any, _name_of: str = name, **kwargs: Any) -> Any:
                target = _name((*args, *kwargs.values()))
                guards.saved.append(f"{target} ({_name_of})")
                return target

            setattr(module, name, export)


def _guard_torch_save(guards: Guards) -> None:
    import torch

    def save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        guards.saved.append(f"{_name((f,))} (torch.save)")

    torch.save = save
