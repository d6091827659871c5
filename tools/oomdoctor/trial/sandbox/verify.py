"""The proof that a sandbox holds: the process tries what it must not be able to do, before any user code runs.

Every attempt goes past Python's own doors (``os``, ``ctypes``), on files that are ours, and must fail with the error
that the sandbox gives. One that succeeds means that there is no sandbox.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable

from oomdoctor.trial.sandbox import kernel
from oomdoctor.trial.sandbox.policy import Policy

CANARY = "canary"
"""A file in ``Policy.canary``, made by the parent."""

Attempt = Callable[[], bool]
"""True when what must not work did not work."""


def broken_promises(policy: Policy) -> tuple[list[str], list[str]]:
    """(promises that hold, promises that do not). Call it in the confined process."""
    held: list[str] = []
    broken: list[str] = []
    for promise, attempt in _attempts(policy).items():
        try:
            (held if attempt() else broken).append(promise)
        except Exception as error:
            broken.append(f"{promise} ({type(error).__name__}: {error})")
    return held, broken


def _attempts(policy: Policy) -> dict[str, Attempt]:
    canary = os.path.join(policy.canary, CANARY)
    fresh = os.path.join(policy.canary, "fresh")
    answers = _NO_IN_NAMESPACE if policy.outer else _NO

    def no(attempt: Callable[[], object]) -> Attempt:
        return lambda: _refused(attempt, answers)

    attempts: dict[str, Attempt] = {
        "scratch can be written": lambda: _scratch_works(policy.scratch),
        "no file outside scratch is made": no(lambda: os.open(fresh, os.O_CREAT | os.O_WRONLY, 0o600)),
        "no file outside scratch is written": no(lambda: os.open(canary, os.O_WRONLY)),
        "no file outside scratch is emptied": lambda: _unchanged(canary, lambda: os.truncate(canary, 0)),
        "no file outside scratch is removed": lambda: _unchanged(canary, lambda: os.unlink(canary)),
        "no file outside scratch is renamed": lambda: _unchanged(canary, lambda: os.rename(canary, fresh)),
        "no file outside scratch is linked into it": no(lambda: os.link(canary, os.path.join(policy.scratch, "link"))),
        "no attribute outside scratch is changed": lambda: _unchanged(canary, lambda: os.chmod(canary, 0o777)),
        "no other process is signalled": no(lambda: os.kill(os.getppid(), 0)),
        "no signal goes round by a pipe": lambda: not _pipe_signals(os.getppid()),
    }
    if policy.read is not None:
        attempts["no file is read that is not on the list"] = no(lambda: os.open(canary, os.O_RDONLY))
    if not policy.allow_network:
        attempts["no socket is opened"] = no(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        attempts["no local socket is opened"] = no(lambda: socket.socket(socket.AF_UNIX))
    if not policy.allow_processes:
        attempts["no process is started"] = _no_fork
        attempts["no program is executed"] = _no_exec
    return attempts


_NO = (errno.EPERM, errno.EACCES, errno.EXDEV)
_NO_IN_NAMESPACE = (*_NO, errno.EROFS, errno.ENOENT)
"""Bubblewrap mounts read-only, and what it does not mount is not there."""


def _refused(attempt: Callable[[], object], answers: tuple[int, ...]) -> bool:
    """Whether it fails for want of permission and for no other reason."""
    try:
        made = attempt()
    except OSError as error:
        return error.errno in answers
    if isinstance(made, int) and made > 2:
        os.close(made)
    elif isinstance(made, socket.socket):
        made.close()
    return False


def _unchanged(path: str, attempt: Callable[[], object]) -> bool:
    """Whether ``path`` is as it was (or out of sight), whatever the attempt said."""
    before = _look(path)
    with contextlib.suppress(OSError):
        attempt()
    return _look(path) == before


def _look(path: str) -> tuple[int, int] | None:
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_mode, about.st_size


def _scratch_works(scratch: str) -> bool:
    path = os.path.join(scratch, "verify")
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
    return True


def _pipe_signals(other: int) -> bool:
    """Whether a pipe's signals can be sent to ``other``."""
    import fcntl

    read, write = os.pipe()
    try:
        fcntl.fcntl(read, fcntl.F_SETOWN, other)
        return True
    except OSError:
        return False
    finally:
        os.close(read)
        os.close(write)


def _no_fork() -> bool:
    pid = int(kernel.libc().fork())
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
    return pid < 0


def _no_exec() -> bool:
    """Executing a file that is not there fails for that reason without a filter, and for permission with one."""
    try:
        os.execv("/oom-doctor/nothing", ["nothing"])
    except OSError as error:
        return error.errno == errno.EPERM
    return False
