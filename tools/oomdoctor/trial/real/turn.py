"""One GPU job at a time: a lock that every process of this user respects."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from oomdoctor.errors import TrialFailed

POLL_SECONDS = 0.2


@contextlib.contextmanager
def turn(wait_seconds: float = 0.0, folder: Path | None = None) -> Iterator[None]:
    """Hold the GPU for one job. Raises :class:`TrialFailed` when another of ours still runs after ``wait_seconds``.

    The lock is the operating system's, so it ends with the process that holds it, however that one dies.
    """
    path = (
        folder or Path(tempfile.gettempdir())
    ) / f"oom-doctor-gpu-{os.getuid() if hasattr(os, 'getuid') else 0}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _lock(descriptor):
            if time.monotonic() >= deadline:
                raise TrialFailed(
                    "another run of OOM Doctor uses the GPU now, and two at a time would measure each other; wait for "
                    "it to end and run this again."
                )
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
