"""The command line in a process that stays: one import of torch serves every tool call on the same card.

``python -m oomdoctor_evals.agents.warm SOCKET`` answers one request after the other, each a JSON line ``{"argv", "cwd"}``,
with ``{"status", "stdout", "stderr"}``. It ends when its stdin closes. What a person's client starts anew for each call
runs here unchanged, but for the child with torch, which is kept as long as the same card is asked for.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from oomdoctor.trial.zygote import Zygote
from oomdoctor.values import Card

START_SECONDS = 120.0


class Lasting(Zygote):
    """A child that outlives the command that started it."""

    def start(self) -> None:
        """From a folder that outlives the command, too."""
        if self.pid is None:
            here = os.getcwd()
            os.chdir("/")
            super().start()
            os.chdir(here)

    def close(self) -> None:
        """Stays for the next command; :meth:`end` ends it."""

    def end(self) -> None:
        super().close()


class Kept:
    """Stands where the doctor makes its child: hands out the last one when it is of the same kind."""

    def __init__(self) -> None:
        self.key = ""
        self.child: Lasting | None = None

    def __call__(self, python: str | None, card: Card, loading: dict[str, Any], **options: Any) -> Zygote:
        key = repr((python, card.name, sorted(loading.items(), key=str), options.get("policy")))
        if self.child is None or key != self.key:
            if self.child is not None:
                self.child.end()
            self.child, self.key = Lasting(python, card, loading, **options), key
        return self.child


def serve(path: str) -> None:
    """Answer requests until stdin closes."""
    from oomdoctor import doctor
    from oomdoctor.cli import main as cli

    kept = Kept()
    vars(doctor)["Zygote"] = kept
    threading.Thread(target=_end_with_stdin, args=(kept,), daemon=True).start()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(8)
        while True:
            connection, _ = listening.accept()
            with connection, connection.makefile("rwb") as stream:
                request = json.loads(stream.readline())
                out, err = io.StringIO(), io.StringIO()
                os.chdir(request["cwd"])
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    status = cli(request["argv"])
                os.chdir("/")
                if status == 3:
                    kept.key = ""  # a child that broke is not used again
                answer = {"status": status, "stdout": out.getvalue(), "stderr": err.getvalue()[-20000:]}
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()


def _end_with_stdin(kept: Kept) -> None:
    while os.read(0, 4096):
        pass
    if kept.child is not None:
        kept.child.end()
    os._exit(0)


def ask(path: str, arguments: list[str]) -> dict[str, Any]:
    """One command to the server at that socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        with connection.makefile("rwb") as stream:
            stream.write(json.dumps({"argv": arguments, "cwd": os.getcwd()}).encode() + b"\n")
            stream.flush()
            answer: dict[str, Any] = json.loads(stream.readline())
            return answer


class Worker:
    """Starts such a process on first use, and ends it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="oom-evals-", ignore_cleanup_errors=True)
        self.socket = str(Path(self._folder.name) / "warm")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """The socket's path, once somebody listens there."""
        if self._process is None or self._process.poll() is not None:
            Path(self.socket).unlink(missing_ok=True)
            command = [sys.executable, "-m", "oomdoctor_evals.agents.warm", self.socket]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            limit = time.monotonic() + START_SECONDS
            while not os.path.exists(self.socket) and self._process.poll() is None and time.monotonic() < limit:
                time.sleep(0.05)
        return self.socket

    def close(self) -> None:
        """End it, and the child it keeps."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
        self._process = None
        self._folder.cleanup()


if __name__ == "__main__":
    serve(sys.argv[1])
