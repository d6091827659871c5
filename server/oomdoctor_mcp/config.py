"""What the person who starts the server allows. Nothing in here can be changed by a tool call."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "oomdoctor_mcp.child")


@dataclass(frozen=True)
class Config:
    """The server's settings, fixed for the life of the process."""

    roots: tuple[Path, ...]
    """Folders, resolved; no file outside of them is read or written. Empty: scripts and logs only as text."""
    allow_exec: bool = False
    """Whether the user's own scripts may be run."""
    python: str | None = None
    """The interpreter that runs scripts (default: this one)."""
    network: bool = True
    """Whether a real run may use the network. Nothing else ever does."""
    configs: tuple[Path, ...] = ()
    """Folders with the JSON configs of models that the catalogue lacks."""
    timeout_s: float = 900.0
    """A job that takes longer is stopped."""
    command: tuple[str, ...] = COMMAND
    """How our command line is started; tests put their own program here."""


class _Refused(Exception):
    """Bad options: ``args[0]`` is what argparse would print."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise _Refused(f"{message}. `oom-doctor serve --help` lists the options.")


def parser() -> argparse.ArgumentParser:
    """The options of ``oom-doctor serve``."""
    p = _Parser(prog="oom-doctor serve", description="Serve the Model Context Protocol over stdin and stdout.")
    p.add_argument(
        "--root",
        action="append",
        type=Path,
        metavar="DIR",
        help="a folder whose scripts and logs may be read, and where patched scripts may be written; repeatable "
        "(default: the working folder, unless that is your home folder or the root of a disk)",
    )
    p.add_argument(
        "--allow-exec",
        action="store_true",
        help="let tools run your scripts, with your rights. Without it only generated calls run, never your code",
    )
    p.add_argument(
        "--python",
        metavar="PATH",
        help="the interpreter that has torch and diffusers (default: $OOM_DOCTOR_PYTHON, this one if it has them, the active "
        "environment's, python3)",
    )
    p.add_argument("--no-network", action="store_true", help="real runs may not use the network either")
    p.add_argument(
        "--configs",
        action="append",
        type=Path,
        metavar="DIR",
        help="a folder with the JSON configs of models that are not in the catalogue; repeatable",
    )
    p.add_argument(
        "--timeout", type=float, default=900.0, metavar="SECONDS", help="stop a job that takes longer (default: 900)"
    )
    return p


def from_argv(argv: Sequence[str]) -> Config:
    """The settings in ``argv``.

    Raises ``ValueError`` with a sentence for the person; ``SystemExit`` after ``--help``.
    """
    try:
        options = parser().parse_args(list(argv))
    except _Refused as error:
        raise ValueError(str(error)) from None
    for folder in (*(options.root or ()), *(options.configs or ())):
        if not folder.expanduser().is_dir():
            raise ValueError(f"{folder} is not a folder. Give --root and --configs folders that exist.")
    if not options.timeout > 0:
        raise ValueError("--timeout is in seconds and must be above 0.")
    return Config(
        roots=_resolved(options.root) if options.root else default_roots(Path.cwd()),
        allow_exec=options.allow_exec,
        python=options.python or os.environ.get("OOM_DOCTOR_PYTHON") or None,
        network=not options.no_network,
        configs=_resolved(options.configs or ()),
        timeout_s=options.timeout,
    )


def default_roots(folder: Path) -> tuple[Path, ...]:
    """``folder``, unless it is a home folder or the root of a disk: desktop clients start servers there, and nobody
    meant to hand over all of it."""
    folder = folder.resolve()
    if folder == Path(folder.anchor) or folder == Path.home().resolve():
        return ()
    return (folder,)


def _resolved(folders: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(folder.expanduser().resolve() for folder in folders))
