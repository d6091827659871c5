"""The parent's side of the zygote: start it, send it runs, read what it says, and never leave it behind."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oomdoctor.errors import BadInterpreter, TrialFailed
from oomdoctor.values import Card

Progress = Callable[[str, str | None], None]
"""Told of each stage that begins: (stage, component)."""

START_SECONDS = 120.0
ROOT = Path(__file__).resolve().parents[1]


def card_dict(card: Card, *, total_bytes: int | None = None, other_process_bytes: int = 0) -> dict[str, Any]:
    """A catalogue card as the child wants it. ``total_bytes`` overrides the card's memory."""
    pinned, pageable = pcie_rates(card)
    return {
        **card.model_dump(exclude={"source", "pcie_generation", "pcie_lanes"}),
        "compute_capability": card.compute_capability or (8, 0),
        "total_bytes": total_bytes if total_bytes is not None else card.total_bytes,
        "pcie_bytes_per_second": pinned,
        "pageable_bytes_per_second": pageable,
        "other_process_bytes": other_process_bytes,
    }


def pcie_rates(card: Card) -> tuple[float, float]:
    """Host-to-card bytes/s: (page-locked, pageable).

    A lane of PCIe 3.0 carries 0.985 GB/s and each generation doubles it; about 80 % of that arrives with large
    page-locked copies, and about half of it from pageable memory, which the driver stages through a buffer.
    """
    lane = 0.985e9 * 2 ** ((card.pcie_generation or 4) - 3)
    pinned = lane * (card.pcie_lanes or 16) * 0.80
    return pinned, pinned * 0.5


class Zygote:
    """A warm child of one interpreter. ``with Zygote(python, card, loading) as z: z.run({...})``."""

    child = ROOT / "trial" / "child.py"
    """The program of the child; the evals put their own around it, which also watches what is called."""

    def __init__(self, python: str | None, card: Card, loading: dict[str, Any]) -> None:
        self.python = python or sys.executable
        self.versions: dict[str, str] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="oom-doctor-")
        self.scratch = self._scratch.name
        self._setup = {"card": card_dict(card), "loading": {**loading, "scratch": os.path.join(self.scratch, "models")}}
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = -1
        self._buffer = b""
        self._next_id = 0

    # ------------------------------------------------------------------ life
    def __enter__(self) -> Zygote:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the child and wait until it is ready. Raises :class:`BadInterpreter`, :class:`TrialFailed`."""
        os.makedirs(self._setup["loading"]["scratch"], exist_ok=True)
        read, write = os.pipe()
        command = [self.python, "-u", str(self.child), str(ROOT), str(write)]
        self._errors = open(os.path.join(self.scratch, "stderr.txt"), "w+b")  # noqa: SIM115 (closed in close)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=(write,),
                start_new_session=True,
                env=child_environment(),
            )
        except OSError as error:
            os.close(read)
            raise BadInterpreter(
                f"{self.python} cannot be started ({error.strerror}). Give the interpreter that runs your script with "
                "--python, for example --python .venv/bin/python."
            ) from None
        finally:
            os.close(write)
        self._reader = read
        self._send(self._setup)
        ready = self._receive(time.monotonic() + START_SECONDS)
        if not ready.get("ready"):
            self.close()
            missing = ready.get("missing", "torch")
            raise BadInterpreter(
                f"{self.python} has no working {missing} ({ready.get('error', 'no reason given')}). Install it there "
                f"(pip install 'oom-doctor[run]' brings torch, diffusers, transformers and accelerate), or name the "
                "interpreter that runs your script with --python."
            )
        self.versions = dict(ready["versions"])

    def close(self) -> None:
        """End the child and everything it started. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
            os.close(self._reader)
            self._errors.close()
        self._scratch.cleanup()

    # ------------------------------------------------------------------ runs
    def run(self, request: dict[str, Any], *, timeout: float, progress: Progress | None = None) -> dict[str, Any]:
        """One run in a fork of the child. The answer of ``trial.running.run``, or ``{"outcome": "timeout"}``.

        Raises :class:`TrialFailed` when the child breaks for a reason of ours.
        """
        self._next_id += 1
        folder = os.path.join(self.scratch, f"run{self._next_id}")
        os.makedirs(folder, exist_ok=True)
        self._send({**request, "id": self._next_id, "scratch": folder})
        deadline = time.monotonic() + timeout
        while True:
            try:
                message = self._receive(deadline)
            except TimeoutError:
                self._send({"cancel": True})
                self._receive(time.monotonic() + 10)
                return {"outcome": "timeout", "error": f"stopped after {timeout:.0f} s"}
            if "stage" in message:
                if progress is not None:
                    progress(message["stage"], message.get("component") or None)
            elif "result" in message:
                result: dict[str, Any] = message["result"]
                return result
            elif "defect" in message:
                raise TrialFailed(f"the virtual run broke for a reason of ours, please report it:\n{message['defect']}")
            elif "crashed" in message:
                raise TrialFailed(
                    f"the process of the virtual run ended with status {message['crashed']} and no answer. Its last "
                    f"words: {self._last_words()}"
                )

    # ------------------------------------------------------------------ wire
    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise TrialFailed(f"the child process has ended. Its last words: {self._last_words()}") from None

    def _receive(self, deadline: float) -> dict[str, Any]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                chunk = os.read(self._reader, 1 << 20)
                if not chunk:
                    raise TrialFailed(f"the child process has ended. Its last words: {self._last_words()}")
                self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _last_words(self) -> str:
        self._errors.flush()
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        return self._errors.read().decode(errors="replace").strip() or "none"


_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "HF_HOME",
              "HF_HUB_CACHE", "SYSTEMROOT", "USERPROFILE")  # fmt: skip


def child_environment() -> dict[str, str]:
    """What the child may see of our environment: no tokens, no keys, no allocator settings of ours."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}
