"""The zygote's life after its imports: one fork per request, and only whole, checked messages of it passed on.

A fork that ran a script is not trusted: it has a pipe of its own, of which only JSON objects with known keys get
through, up to a limit; who it is, is written by the zygote.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from oomdoctor.trial.life import end_with_parent
from oomdoctor.trial.limits import Limits, folder_bytes

KNOWN = frozenset(("stage", "component", "live", "isolation", "by", "result", "defect"))
LOOK_EVERY = 1.0
"""Seconds between looks at how much a run has written."""
IDLE = 0.5
"""Seconds between looks at whether the parent is still ours, should its pipe be held open by somebody else."""

Run = Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], dict[str, Any]]


class Lines:
    """Lines out of a pipe, without losing what came with them."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.total = 0
        self.open = True
        self._rest = b""

    def read(self) -> list[bytes]:
        """What is complete now; waits until there is something to read."""
        chunk = os.read(self.fd, 1 << 18)
        self.open = bool(chunk)
        self.total += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return lines


def send(fd: int, message: dict[str, Any]) -> None:
    """One message as a line, whole."""
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[os.write(fd, data) :]


class Zygote:
    """Obeys the requests on ``requests``, answers on ``answers``; ``run`` is what a fork does."""

    def __init__(self, requests: int, answers: int, life: int, parent: int, run: Run) -> None:
        self.requests = Lines(requests)
        self.answers = answers
        self.life = life
        self.parent = parent
        self.run = run
        self._waiting: list[dict[str, Any]] = []

    def obey(self) -> None:
        """Until the requests end or the parent is gone."""
        while self.requests.open and self._parent_lives():
            while self._waiting:
                request = self._waiting.pop(0)
                if "cards" in request:  # a late "cancel" is for a run that has already ended
                    self._serve(request)
            if select.select([self.requests.fd], [], [], IDLE)[0]:
                self._waiting += map(json.loads, self.requests.read())

    def _parent_lives(self) -> bool:
        return not self.parent or os.getppid() == self.parent

    # ------------------------------------------------------------------ one run
    def _serve(self, request: dict[str, Any]) -> None:
        read, write = os.pipe()
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            self._become_run(request, write, zygote)
        os.close(write)
        try:
            message = self._follow(pid, read, request)
        finally:
            os.close(read)
        send(self.answers, {**message, "id": request["id"]})

    def _follow(self, pid: int, read: int, request: dict[str, Any]) -> dict[str, Any]:
        """Pass on what the fork says; its last message, or why there is none. The fork is gone afterwards."""
        limits = Limits.from_dict(request.get("limits"))
        lines = Lines(read)
        last: dict[str, Any] = {}
        next_look = time.monotonic() + LOOK_EVERY
        why: dict[str, Any] | None = None
        while lines.open and not last and why is None:
            ready = select.select([read, self.requests.fd], [], [], 0.25)[0]
            if read in ready:
                last = self._pass_on(lines.read(), request)
            if lines.total > limits.answer_bytes:
                why = {"stopped": f"it said more than {limits.answer_bytes >> 20} MiB"}
            if self.requests.fd in ready and self._asked_to_stop():
                why = {"cancelled": True}
            if not self.requests.open or not self._parent_lives():
                os.kill(pid, signal.SIGKILL)
                os._exit(3)
            if time.monotonic() > next_look:
                next_look = time.monotonic() + LOOK_EVERY
                if folder_bytes(request["scratch"]) > limits.scratch_bytes:
                    why = {"stopped": f"it wrote more than {limits.scratch_bytes >> 20} MiB of files"}
        status = self._end(pid, gently=why is None)
        if why is not None:
            return why
        return last or {"crashed": os.waitstatus_to_exitcode(status)}

    def _pass_on(self, lines: list[bytes], request: dict[str, Any]) -> dict[str, Any]:
        """Progress goes to the parent at once; a result or a defect is given back."""
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if not isinstance(message, dict) or not message.keys() <= KNOWN:
                continue
            if "result" in message or "defect" in message:
                return message
            send(self.answers, {**message, "id": request["id"]})
        return {}

    def _asked_to_stop(self) -> bool:
        messages = [json.loads(line) for line in self.requests.read()]
        self._waiting += [m for m in messages if not m.get("cancel")]
        return any(m.get("cancel") for m in messages)

    def _end(self, pid: int, *, gently: bool) -> int:
        """Wait for the fork, for a moment when it has said its last word, and not at all otherwise."""
        deadline = time.monotonic() + (2.0 if gently else 0.0)
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status
            if time.monotonic() >= deadline:
                os.kill(pid, signal.SIGKILL)
                return os.waitpid(pid, 0)[1]
            time.sleep(0.005)

    # ------------------------------------------------------------------ the fork
    def _become_run(self, request: dict[str, Any], write: int, zygote: int) -> NoReturn:
        """In the fork: nothing of the zygote's own pipes stays open."""
        try:
            end_with_parent(zygote, self.life)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, self.requests.fd)
            os.close(nothing)
            os.close(self.answers)
            send(write, {"result": self.run(request, lambda message: send(write, message))})
        except BaseException:
            send(write, {"defect": traceback.format_exc()[-8000:]})
        finally:
            os._exit(0)
