"""The parent's side of the zygote: start it, send it runs, read what it says, and never leave it behind."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from oomdoctor.errors import BadInterpreter, NoConsent, TrialFailed
from oomdoctor.trial.sandbox import Policy, bubblewrap, landlock, own_files
from oomdoctor.trial.sandbox.verify import CANARY
from oomdoctor.values import Card

Progress = Callable[[str, str | None], None]
"""Told of each stage that begins: (stage, component)."""

Live = Callable[[dict[str, Any]], None]
"""Told how far a run is: ``stage``, ``component``, ``step``, ``allocated_bytes``, ``reserved_bytes``."""

START_SECONDS = 120.0
ROOT = Path(__file__).resolve().parents[1]
SNAPSHOT = "snapshot.json"
"""Where a run leaves its allocator's snapshot, in its scratch folder."""
MAX_SNAPSHOT_BYTES = 240 << 20


_RATES = ("pinned_bytes_per_second", "pageable_bytes_per_second")


def card_dict(card: Card, *, total_bytes: int | None = None, other_process_bytes: int = 0) -> dict[str, Any]:
    """A catalogue card as the child wants it. ``total_bytes`` overrides the card's memory."""
    pinned, pageable = pcie_rates(card)
    pinned = card.pinned_bytes_per_second or pinned
    pageable = card.pageable_bytes_per_second or pageable
    return {
        **card.model_dump(exclude={"source", "pcie_generation", "pcie_lanes", *_RATES}),
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

    def __init__(
        self,
        python: str | None,
        card: Card,
        loading: dict[str, Any],
        *,
        policy: Policy | None = None,
        warm: Iterable[str] = (),
    ) -> None:
        """``policy``: how each run is isolated; its folders are filled in here. ``warm``: classes of diffusers and
        transformers (``diffusers.FluxPipeline``) that the runs will need, imported once for all of them."""
        self.python = python or sys.executable
        self.versions: dict[str, str] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="oom-doctor-", ignore_cleanup_errors=True)
        self.scratch = os.path.realpath(self._scratch.name)
        self._runs = os.path.join(self.scratch, "runs")
        self.policy = self._complete(policy or Policy(), loading)
        self._setup: dict[str, Any] = {
            "card": card_dict(card),
            "loading": {**loading, "scratch": os.path.join(self._runs, "models")},
            "warm": list(warm),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = self._life = -1
        self._buffer = b""
        self._next_id = 0

    def _complete(self, policy: Policy, loading: dict[str, Any]) -> Policy:
        """The policy with what is known only here: what loading reads, and whether bubblewrap goes around the child."""
        read = policy.read
        if read is not None:
            known = (loading.get("catalogue"), *loading.get("configs", ()), loading.get("hf_cache"))
            ours = (path for folder in known if folder for path in own_files(folder))
            read = (*read, *ours, str(ROOT), *_interpreter(self.python))
        outer = policy.mode != "guards" and not landlock.abi() and bubblewrap.works()
        canary = os.path.join(self.scratch, "canary")
        return replace(policy, read=read, canary=canary, outer="bubblewrap" if outer else "")

    # ------------------------------------------------------------------ life
    def __enter__(self) -> Zygote:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the child and wait until it is ready. Raises :class:`BadInterpreter`, :class:`TrialFailed`."""
        os.makedirs(self._setup["loading"]["scratch"], exist_ok=True)
        os.makedirs(self.policy.canary, exist_ok=True)
        temporary = os.path.join(self._runs, "tmp")
        os.makedirs(temporary, exist_ok=True)
        Path(self.policy.canary, CANARY).write_text("nobody changes this\n")
        read, write = os.pipe()
        lives, self._life = os.pipe()
        parent = 0 if self.policy.outer else os.getpid()
        command = [self.python, "-u", str(self.child), str(ROOT), str(write), str(lives), str(parent)]
        if self.policy.outer:
            allowed = None if self.policy.read is None else self.policy.readable()
            command = bubblewrap.wrap(
                command, write=(self._runs,), read=allowed, allow_network=self.policy.allow_network
            )
        self._errors = open(os.path.join(self.scratch, "stderr.txt"), "w+b")  # noqa: SIM115 (closed in close)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=(write, lives),
                start_new_session=True,
                env={**child_environment(), "TMPDIR": temporary},
            )
        except OSError as error:
            os.close(read)
            os.close(self._life)
            raise BadInterpreter(
                f"{self.python} cannot be started ({error.strerror}). Give the interpreter that runs your script with "
                "--python, for example --python .venv/bin/python."
            ) from None
        finally:
            os.close(write)
            os.close(lives)
        self._reader = read
        self._send(self._setup)
        try:
            ready = self._receive(time.monotonic() + START_SECONDS)
        except TimeoutError:
            self.close()
            raise TrialFailed(f"{self.python} took longer than {START_SECONDS:.0f} s to import torch.") from None
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
            os.close(self._life)
            self._errors.close()
        self._scratch.cleanup()

    @property
    def pid(self) -> int | None:
        """Process id of the child and number of its process group; None when it does not run."""
        return self._process.pid if self._process else None

    # ------------------------------------------------------------------ runs
    def run(
        self, request: dict[str, Any], *, timeout: float, progress: Progress | None = None, live: Live | None = None
    ) -> dict[str, Any]:
        """One run in a fork of the child. The answer of ``trial.running.run``, or ``{"outcome": "timeout"}``.

        ``live`` is told how far the run is, a few times a second. Raises :class:`TrialFailed` when the child breaks
        for a reason of ours, :class:`NoConsent` when a sandbox is required and does not hold.
        """
        self._next_id += 1
        folder = os.path.join(self._runs, f"run{self._next_id}")
        os.makedirs(folder, exist_ok=True)
        self._send({**request, "id": self._next_id, "scratch": folder, "policy": asdict(self.policy)})
        deadline = time.monotonic() + timeout
        isolation: dict[str, str] = {}
        try:
            while True:
                message = self._receive(deadline)
                if message.get("id") != self._next_id:
                    continue
                if "isolation" in message and not isolation:  # the first is ours: user code has not run yet
                    isolation = {"isolation": str(message["isolation"]), "isolated_by": str(message.get("by", ""))}
                if (answer := self._ending(message, folder)) is not None:
                    return {**answer, **isolation}
                if "stage" in message and progress is not None:
                    progress(str(message["stage"]), message.get("component") or None)
                elif isinstance(message.get("live"), dict) and live is not None:
                    live(message["live"])
        except TimeoutError:
            self._cancel()
            return {"outcome": "timeout", "error": f"stopped after {timeout:.0f} s", **isolation}
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _ending(self, message: dict[str, Any], folder: str) -> dict[str, Any] | None:
        """The answer, when this message ends the run."""
        if "result" in message:
            result: dict[str, Any] = message["result"]
            if not isinstance(result, dict) or "outcome" not in result:
                raise TrialFailed("the virtual run gave an answer that is none; did the script write to our pipe?")
            if result.get("outcome") == "refused":
                raise NoConsent(
                    f"Running your own script here needs a sandbox, and there is none: {result.get('error')}. Consent "
                    "to run it with guards only (--isolation guards, on the server --allow-exec), or run a generated "
                    "call instead (--call, --no-exec)."
                )
            if result.get("snapshot"):
                result["snapshot"] = _read_json(os.path.join(folder, SNAPSHOT))
            return result
        if "defect" in message:
            raise TrialFailed(f"the virtual run broke for a reason of ours, please report it:\n{message['defect']}")
        if "stopped" in message:
            return {"outcome": "timeout", "error": f"stopped: {message['stopped']}"}
        if "crashed" in message:
            raise TrialFailed(
                f"the process of the virtual run ended with status {message['crashed']} and no answer. Its last "
                f"words: {self._last_words()}"
            )
        return None

    def _cancel(self) -> None:
        """End the run that is on; a child that does not obey is ended as a whole."""
        self._send({"cancel": True})
        deadline = time.monotonic() + 10
        try:
            while True:
                message = self._receive(deadline)
                if message.get("id") == self._next_id and message.keys() & {
                    "cancelled",
                    "result",
                    "crashed",
                    "stopped",
                }:
                    return
        except TimeoutError:
            self.close()
            raise TrialFailed("the child process did not end a run that took too long; it was killed.") from None

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


def _interpreter(python: str) -> tuple[str, ...]:
    """Folders of an interpreter, by its path and by where that leads."""
    found = shutil.which(python) or python
    return tuple({os.path.dirname(os.path.dirname(p)) for p in (os.path.abspath(found), os.path.realpath(found))})


def _read_json(path: str) -> Any:
    """A file that the run left; None when there is none, or it is not what it should be. It may come from user code."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_size > MAX_SNAPSHOT_BYTES:
                return None
            return json.load(file)
    except (OSError, ValueError, RecursionError):
        return None


def child_environment() -> dict[str, str]:
    """What the child may see of our environment: no tokens, no keys, no allocator settings of ours.

    Libraries that go through a set load weights in the order of its hashes: with those fixed, two runs of one script
    ask for memory in the same order and end with the same figures.
    """
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8", "PYTHONHASHSEED": "0"}
