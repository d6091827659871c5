"""A process that does not outlive its parent, however that one dies. Child side, standard library only.

On Linux the kernel does it: a pipe that only the parent holds open is set to send SIGKILL to the whole process group
when it closes, and a fork is also told to die with the process it came from. Nothing is polled, and no thread is
needed, which a fork would not have. Elsewhere a thread waits for the pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

from oomdoctor.trial.sandbox import kernel

F_SETSIG = 10
"""Linux ``fcntl``; Python has no name for it before 3.13."""


def end_with_pipe(fd: int) -> None:
    """Kill this process's group when the other end of the pipe ``fd`` closes. The group must be our own."""
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(fd, F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
        # The parent may have gone before the signal was armed: then the pipe is at its end already.
        with contextlib.suppress(BlockingIOError):
            if os.read(fd, 1) == b"":
                os.killpg(0, signal.SIGKILL)
    else:
        threading.Thread(target=_wait_for_end, args=(fd,), daemon=True).start()


def _wait_for_end(fd: int) -> None:
    while os.read(fd, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


def end_with_parent(parent: int, life: int) -> None:
    """In a fork of ``parent``: die with it. ``life`` is the pipe of :func:`end_with_pipe`, closed here on Linux."""
    if sys.platform == "linux":
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(3)
        os.close(life)
    else:
        threading.Thread(target=_wait_for_end, args=(life,), daemon=True).start()
