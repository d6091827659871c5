"""Bubblewrap: mount, network and process namespaces around the whole child, where the kernel has no Landlock."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

PROGRAM = "bwrap"


def program() -> str | None:
    """Path of bubblewrap, None when it is not installed."""
    return shutil.which(PROGRAM) if sys.platform == "linux" else None


@functools.cache
def works() -> bool:
    """Whether it can make its namespaces here (some systems forbid them to ordinary users). Runs ``true`` once."""
    found = program()
    if found is None:
        return False
    command = [found, "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "true"]
    try:
        return subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def wrap(
    command: list[str], *, write: tuple[str, ...], read: tuple[str, ...] | None, allow_network: bool = False
) -> list[str]:
    """``command`` inside namespaces: ``write`` can be written, ``read`` read (None: everything)."""
    found = program()
    assert found is not None
    out = [found, "--unshare-user-try", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
    out += [] if allow_network else ["--unshare-net"]
    out += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if read is None:
        out += ["--ro-bind", "/", "/"]
    else:
        for path in _outer_first(read):
            out += ["--ro-bind-try", path, path]
    out += ["--dev", "/dev", "--proc", "/proc"]
    for path in write:
        out += ["--bind", path, path]
    return [*out, "--", *command]


def _outer_first(paths: tuple[str, ...]) -> list[str]:
    """Without what bubblewrap mounts itself; a folder comes before what lies in it, or it would hide that."""
    kept = {p for p in paths if not p.startswith(("/proc", "/dev", "/sys"))}
    return sorted(kept, key=lambda p: p.count(os.sep))
