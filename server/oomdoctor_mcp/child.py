"""What a job runs: our command line in a process that ends with the server, however the server ends.

``python -m oomdoctor_mcp.child COMMAND ...``: the server holds the other end of stdin open as long as it lives. When
that end closes, this process takes everything it started with it; grandchildren may sit in sessions of their own, and
may be too busy to notice by themselves.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

LARGEST_FILE_BYTES = 4 << 30
ENDED_WITH_SERVER = 3


def main(argv: list[str]) -> int:
    """Runs the command line with ``argv``; returns its exit status."""
    keep_to_limits(real="--real" in argv)
    watch(_take_stdin())
    from oomdoctor.cli import main as command_line

    return command_line(argv)


def keep_to_limits(*, real: bool) -> None:
    """No core dumps, which would hold whatever was in memory; no giant files (a real run may offload to disk)."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {resource.RLIMIT_CORE: 0} | ({} if real else {resource.RLIMIT_FSIZE: LARGEST_FILE_BYTES})
    for which, amount in limits.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (amount, amount))


def _take_stdin() -> int:
    """The pipe from the server, moved away from stdin, so that nothing else here reads or inherits it."""
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return pipe


def watch(pipe: int) -> None:
    """Ends this process and its descendants when the other end of ``pipe`` closes."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(pipe, 4096):
                pass
        end_descendants()
        os._exit(ENDED_WITH_SERVER)

    # Not through sys.stdin: a thread that holds its lock makes the interpreter abort when it ends.
    threading.Thread(target=wait, daemon=True, name="watch the server").start()


def end_descendants() -> None:
    """Ends all processes below this one; psutil is imported late, since most runs never need it."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
