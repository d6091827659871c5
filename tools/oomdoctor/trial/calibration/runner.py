"""``oom-doctor calibrate``: run the measuring program in the user's interpreter and keep what it found."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from oomdoctor.errors import BadInterpreter, NoGpu, TrialFailed
from oomdoctor.trial.real.runner import environment
from oomdoctor.trial.real.turn import turn
from oomdoctor.values import Calibration

CHILD = Path(__file__).with_name("child.py")
LIMIT_SECONDS = 120.0


def calibrate(python: str | None = None, *, driver: str | None = None, program: Path = CHILD) -> Calibration:
    """Measure this machine's first GPU. Raises :class:`NoGpu`, :class:`BadInterpreter`, :class:`TrialFailed`."""
    with turn():
        text = _run(python or sys.executable, program)
    if text.get("missing"):
        raise NoGpu("calibrate measures a CUDA GPU, and torch finds none in this interpreter.")
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return Calibration.model_validate({**text, "driver": driver, "date": today})


def _run(python: str, program: Path) -> dict[str, object]:
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            [python, "-u", str(program), str(writer)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, pass_fds=(writer,), start_new_session=True, env=environment(),
        )  # fmt: skip
    except OSError as error:
        os.close(reader)
        raise BadInterpreter(
            f"the interpreter {python} cannot be started ({error}); give --python the right one."
        ) from None
    finally:
        os.close(writer)
    try:
        return _answer(process, reader)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _answer(process: subprocess.Popen[bytes], reader: int) -> dict[str, object]:
    deadline = time.monotonic() + LIMIT_SECONDS
    received = b""
    while not received.endswith(b"\n"):
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TrialFailed(f"calibration did not end within {LIMIT_SECONDS:.0f} s; is the GPU busy with other work?")
        chunk = os.read(reader, 65536)
        if not chunk:
            assert process.stderr is not None
            tail = process.stderr.read()[-2000:].decode(errors="replace")
            if "No module named 'torch'" in tail:
                raise BadInterpreter("the interpreter has no torch; give --python the one that runs your scripts.")
            raise TrialFailed(f"calibration failed:\n{tail}")
        received += chunk
    answer: dict[str, object] = json.loads(received)
    return answer
