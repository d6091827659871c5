"""What a run may touch, as data. Made by the parent, obeyed in the child."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Any

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

_SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/localtime", "/etc/timezone", "/etc/os-release", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf",
    "/etc/mime.types", "/etc/ssl", "/etc/pki", "/etc/fonts", "/etc/alternatives", "/proc/self", "/proc/cpuinfo",
    "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/loadavg", "/proc/filesystems",
    "/proc/sys/vm/overcommit_memory", "/sys/devices/system", "/sys/fs/cgroup", *DEVICES,
)  # fmt: skip
"""What an interpreter and its libraries read of a Linux system. Nothing of a person is in it."""


@dataclass(frozen=True)
class Policy:
    """Isolation of one run."""

    mode: str = "auto"
    """``auto``: a sandbox where there is one, guards elsewhere; ``required``: a verified sandbox or no run at all;
    ``guards``: Python's guards only."""
    scratch: str = ""
    """The one folder that may be written to."""
    read: tuple[str, ...] | None = None
    """Files and folders that may be read besides the interpreter's and the system's; None: every one."""
    canary: str = ""
    """A folder outside of scratch that belongs to us and that the run must be unable to change."""
    allow_network: bool = False
    allow_processes: bool = False
    outer: str = ""
    """``bubblewrap`` when the process already lives in one."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Policy:
        read = data.get("read")
        return cls(**{**data, "read": tuple(read) if read is not None else None})

    def readable(self) -> tuple[str, ...]:
        """Every path that may be read, for the interpreter that runs this."""
        if self.read is None:
            return ("/",)
        return tuple(filter(None, (*_SYSTEM, *interpreter_paths(), *self.read, self.scratch)))


def interpreter_paths() -> tuple[str, ...]:
    """Where this interpreter's own modules and libraries lie, never a whole home folder."""
    given = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.realpath(sys.executable)), *sys.path]
    given += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    given.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    return tuple(dict.fromkeys(p for p in map(os.path.realpath, filter(None, given)) if not is_broad(p)))


def is_broad(path: str) -> bool:
    """Whether a folder holds somebody's home, so that reading it whole would read what is none of a script's business."""
    home = os.path.realpath(os.path.expanduser("~"))
    return path == "/" or (home + os.sep).startswith(path.rstrip(os.sep) + os.sep)


def own_files(folder: str) -> tuple[str, ...]:
    """What a script may read of the folder it lies in: all of it; of a home folder only the visible files."""
    folder = os.path.realpath(folder)
    if not is_broad(folder):
        return (folder,)
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return ()
    return tuple(e.path for e in entries if not e.name.startswith(".") and e.is_file(follow_symlinks=False))


@dataclass
class Isolation:
    """What a run is isolated by."""

    name: str
    """``sandbox`` or ``guards``."""
    mechanism: str = ""
    """``landlock 7 + seccomp``."""
    missing: str = ""
    """Why there is no sandbox, when there is none."""
    promises: tuple[str, ...] = field(default=())
    """What was tried and found impossible."""
