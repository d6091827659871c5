"""Run a script on the GPU of this machine, in a child of the user's interpreter, and say how it went."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from oomdoctor.diagnosis import diagnose
from oomdoctor.errors import BadInterpreter, NoGpu, OomDoctorError
from oomdoctor.trial.real.sampling import Sampler
from oomdoctor.trial.real.turn import turn
from oomdoctor.units import human
from oomdoctor.values import Diagnosis, Script, Trial, TrialStage

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("child.py")
ERRORS_TAIL = 8000
KILLED = "Killed"

Progress = Callable[[str, str], None]
Mode = Literal["full", "probe"]

ALLOWED = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "USERPROFILE", "LD_LIBRARY_PATH",
           "VIRTUAL_ENV", "CONDA_PREFIX", "DISPLAY", "XDG_CACHE_HOME", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
           "PYTHONPATH", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")  # fmt: skip
ALLOWED_PREFIXES = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "DIFFUSERS_", "CUDA_", "NVIDIA_", "PYTORCH_", "TORCH_",
                    "TORCHINDUCTOR_", "TRITON_", "NCCL_", "OMP_", "MKL_", "LC_", "ROCR_", "HIP_", "HSA_")  # fmt: skip
"""The environment of a real run: what the script's libraries need, nothing else of the caller's."""


@dataclass(frozen=True)
class RealRun:
    """What to run and how. ``limit_bytes``: the card behaves as one of this size, the rest is really held."""

    source: str
    path: str = "script.py"
    argv: tuple[str, ...] = ()
    mode: Mode = "full"
    limit_bytes: int | None = None
    times: int = 1
    seed: int = 0
    save_to: str | None = None
    compare_to: tuple[str, ...] = ()
    timeout: float = 900.0
    wait_seconds: float = 0.0


def run_real(
    run: RealRun,
    *,
    python: str | None = None,
    script: Script | None = None,
    progress: Progress | None = None,
    program: Path = CHILD,
) -> Trial:
    """Run the script on this machine's GPU. ``program``: what the child executes; another one may go around it.

    Raises :class:`BadInterpreter`, :class:`NoGpu`, :class:`TrialFailed` (another run has the GPU)."""
    with turn(run.wait_seconds):
        answer = _Child(run, python or sys.executable, program).answer(progress)
    return to_trial(answer, run, script)


class _Child:
    """One child process and the end of its life."""

    def __init__(self, run: RealRun, python: str, program: Path) -> None:
        self.run = run
        reader, writer = os.pipe()
        life_read, self.life = os.pipe()
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _end
        try:
            self.process = subprocess.Popen(
                [python, "-u", str(program), str(ROOT), str(writer), str(life_read)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self.errors,
                pass_fds=(writer, life_read), start_new_session=True, env=environment(),
                cwd=os.path.dirname(os.path.abspath(run.path)) if os.path.exists(run.path) else None,
            )  # fmt: skip
        except OSError as error:
            raise BadInterpreter(
                f"the interpreter {python} cannot be started ({error}); give --python the right one."
            ) from None
        finally:
            os.close(writer)
            os.close(life_read)
        self.reader = reader

    def answer(self, progress: Progress | None) -> dict[str, Any]:
        try:
            with Sampler(self.process.pid) as sampler:
                answer = self._talk(progress)
            answer.setdefault("peak_card_bytes", sampler.peak_card_bytes)
            answer.setdefault("peak_host_bytes", sampler.peak_anonymous_bytes)
            answer.setdefault("peak_mapped_bytes", sampler.peak_mapped_bytes)
            return answer
        finally:
            self._end()

    def _talk(self, progress: Progress | None) -> dict[str, Any]:
        assert self.process.stdin is not None
        request = {k: getattr(self.run, k) for k in RealRun.__dataclass_fields__}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        deadline = time.monotonic() + self.run.timeout
        stages: list[tuple[str, str]] = [("load", "")]
        buffer = b""
        while True:
            ready, _, _ = select.select([self.reader], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return {"outcome": "timeout", "stages": [], "last_stage": stages[-1],
                        "error": f"still running after {self.run.timeout:.0f} s"}  # fmt: skip
            chunk = os.read(self.reader, 65536)
            if not chunk:
                return self._died(stages[-1])
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "result" in message:
                    return dict(message["result"])
                if "missing" in message:
                    self._refuse(message)
                if "stage" in message:
                    stages.append((message["stage"], message["component"]))
                if progress is not None:
                    where = message.get("stage") or f"step {message.get('step')}"
                    progress(str(where), str(message.get("component") or ""))

    @staticmethod
    def _refuse(message: dict[str, Any]) -> None:
        if message["missing"] == "torch":
            raise BadInterpreter(
                f"the interpreter of the run has no torch ({message['error']}); give --python the one that runs your "
                "scripts."
            )
        raise NoGpu(
            "--real needs a CUDA GPU that torch can use, and torch finds none in this interpreter. Without --real the "
            "script runs on a virtual card."
        )

    def _died(self, stage: tuple[str, str]) -> dict[str, Any]:
        """No answer came: killed from outside, which for SIGKILL means that the machine ran out of RAM."""
        code = self.process.wait()
        self.errors.seek(0)
        tail = self.errors.read()[-ERRORS_TAIL:].decode(errors="replace")
        killed = code == -signal.SIGKILL
        text = f"{tail}\n{KILLED}" if killed else f"{tail}\nthe process ended with status {code}"
        return {"outcome": "oom" if killed else "error", "error": text, "stages": [], "last_stage": stage}

    def _end(self) -> None:
        """The child and everything it started."""
        os.close(self.life)
        os.close(self.reader)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.errors.close()


def environment() -> dict[str, str]:
    """The variables that a real run sees."""
    return {k: v for k, v in os.environ.items() if k in ALLOWED or k.startswith(ALLOWED_PREFIXES)}


def to_trial(answer: dict[str, Any], run: RealRun, script: Script | None) -> Trial:
    """The child's answer as a value."""
    notes = []
    if answer.get("held_bytes"):
        notes.append(
            f"capped: {human(answer['held_bytes'])} of the card were held so that it behaves like one of "
            f"{human(run.limit_bytes or 0)}."
        )
    if run.mode == "probe":
        notes.append("probe: only the fewest steps that reach every stage were run; peaks do not depend on the number.")
    runs = answer.get("runs") or []
    if len(runs) > 1 and runs[-1]["left_bytes"] > runs[0]["left_bytes"]:
        grown = runs[-1]["left_bytes"] - runs[0]["left_bytes"]
        notes.append(f"{human(grown)} more stayed on the card after run {len(runs)} than after the first: a leak.")
    reserved, seen = answer.get("peak_reserved_bytes"), answer.get("peak_card_bytes")
    outcome = answer["outcome"]
    return Trial.model_validate(
        {
            "device": f"cuda:{answer.get('name', 'unknown')}",
            "ran": "script",
            "isolation": "none",
            "outcome": outcome,
            "peak_allocated_bytes": answer.get("peak_allocated_bytes"),
            "peak_reserved_bytes": reserved,
            "context_bytes": max(0, seen - reserved) if seen and reserved else None,
            "usable_bytes": (answer["free_bytes"] - answer["held_bytes"]) if "free_bytes" in answer else None,
            "peak_host_bytes": answer.get("peak_host_bytes"),
            "peak_mapped_bytes": answer.get("peak_mapped_bytes"),
            "seconds": answer.get("seconds"),
            "stages": tuple(TrialStage(**s) for s in answer["stages"]),
            "script_line": answer.get("script_line"),
            "error": answer.get("error"),
            "steps_run": answer.get("steps_run"),
            "limited_to_bytes": run.limit_bytes,
            "mode": run.mode,
            "outputs": tuple(answer.get("outputs", ())),
            "diagnosis": _diagnosis(answer, script) if outcome == "oom" else None,
            "notes": tuple(notes),
        }
    )


def _diagnosis(answer: dict[str, Any], script: Script | None) -> Diagnosis | None:
    try:
        return diagnose(answer.get("error") or "", script=script)
    except OomDoctorError:
        return None


__all__ = ["RealRun", "environment", "run_real", "to_trial"]
