"""One run of our command line as a child process: started apart, read while it runs, and gone afterwards, whole.

The child sits in a session of its own with a pipe on its stdin that stays open as long as the server lives, and leaves
when that pipe closes (:mod:`oomdoctor_mcp.child`). So it ends with the server even when the server is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, Process
from oomdoctor.errors import TrialFailed
from oomdoctor.units import human

MAX_OUTPUT_BYTES = 64 << 20
MAX_LINE_BYTES = 64 << 10
TAIL_CHARACTERS = 4000
_LINGER_S = 2.0

_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX",
    "XDG_CACHE_HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ROCM_PATH", "HF_HOME", "HF_HUB_CACHE",
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "SSL_CERT_FILE",
    "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "APPDATA", "LOCALAPPDATA",
    "PROGRAMDATA", "PROGRAMFILES", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE",
)  # fmt: skip
"""What a child gets to see of the server's environment; tokens and keys are not on the list."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


class Update(NamedTuple):
    """What a child says about how far it is."""

    phase: str
    fraction: float | None
    message: str


class Outcome(NamedTuple):
    """How a child ended."""

    status: int
    value: dict[str, Any] | None
    """The JSON object it printed."""
    error: tuple[str, str] | None
    """Class name and message of the error it reported."""
    tail: str
    """The end of what else it wrote to stderr; not to be trusted."""


@dataclass(frozen=True)
class Command:
    """What to run, and where."""

    argv: tuple[str, ...]
    folder: Path
    """Working folder: private; what lies in it a confined script may read."""
    network: bool = False

    @property
    def temporary(self) -> Path:
        """Folder for temporary files, beside the working folder: a confined script may not read it."""
        return self.folder.with_name(f"{self.folder.name}-tmp")


def environment(command: Command, source: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: the allow-list, a temporary folder of its own, and no network for libraries."""
    given = os.environ if source is None else source
    found = {name: given[name] for name in _ENVIRONMENT if name in given}
    found |= {name: value for name, value in given.items() if name.startswith("LC_")}
    temporary = str(command.temporary)
    found |= {"TMPDIR": temporary, "TEMP": temporary, "TMP": temporary}
    found |= {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if not command.network:
        found |= OFFLINE
    return found


async def run(command: Command, tell: Callable[[Update], None]) -> Outcome:
    """Runs ``command`` to its end and passes on what it says. However this ends, nothing of it is left running.

    Raises :class:`TrialFailed` when it cannot be started or floods its output.
    """
    kind: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        kind = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    try:
        command.temporary.mkdir(mode=0o700, exist_ok=True)
        process = await anyio.open_process(
            command.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=command.folder,
            env=environment(command),
            **kind,
        )
    except OSError as error:
        shutil.rmtree(command.temporary, ignore_errors=True)
        raise TrialFailed(f"{command.argv[0]} could not be started: {error.strerror}. Reinstall oom-doctor.") from error
    try:
        return await _follow(process, tell)
    finally:
        with anyio.CancelScope(shield=True):
            kill(process.pid, alive=process.returncode is None)
            with anyio.move_on_after(5):
                await process.aclose()
            shutil.rmtree(command.temporary, ignore_errors=True)


async def _follow(process: Process, tell: Callable[[Update], None]) -> Outcome:
    printed = bytearray()
    notes = _Notes(tell)
    assert process.stdout is not None and process.stderr is not None
    flood = False

    async def read_answer(stream: ByteReceiveStream) -> None:
        nonlocal flood
        async for chunk in stream:
            printed.extend(chunk)
            if len(printed) > MAX_OUTPUT_BYTES:
                flood = True
                process.kill()
                return

    async def read_notes(stream: ByteReceiveStream) -> None:
        async for chunk in stream:
            notes.feed(chunk)

    async with anyio.create_task_group() as group:
        group.start_soon(read_answer, process.stdout)
        group.start_soon(read_notes, process.stderr)
        status = await process.wait()
        # A grandchild may still hold the pipes; what it has to say is no longer of interest.
        group.cancel_scope.deadline = anyio.current_time() + _LINGER_S
    notes.close()
    if flood:
        raise TrialFailed(f"The run printed more than {human(MAX_OUTPUT_BYTES)} and was stopped. Report this as a bug.")
    value = await anyio.to_thread.run_sync(_object, printed)  # a measurement can have ten megabytes
    return Outcome(status, value, notes.error, notes.tail)


class _Notes:
    """Reads stderr: JSON lines with ``progress`` or ``error``, and whatever libraries write besides."""

    def __init__(self, tell: Callable[[Update], None]) -> None:
        self.error: tuple[str, str] | None = None
        self.tail = ""
        self._tell = tell
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if not self._skipping:
                self._line(line)
            self._skipping = False
        if len(self._rest) > MAX_LINE_BYTES:
            if not self._skipping:
                self._plain(self._rest[:MAX_LINE_BYTES])
            self._rest, self._skipping = b"", True

    def close(self) -> None:
        if self._rest and not self._skipping:
            self._line(self._rest)
        self._rest = b""

    def _line(self, line: bytes) -> None:
        said = _object(line) if line.startswith(b"{") else None
        if said and isinstance(progress := said.get("progress"), dict):
            fraction = progress.get("fraction")
            known = isinstance(fraction, (int, float)) and 0 <= fraction <= 1
            self._tell(
                Update(
                    str(progress.get("phase", ""))[:40],
                    fraction if known else None,
                    str(progress.get("message", ""))[:160],
                )
            )
        elif said and isinstance(error := said.get("error"), dict):
            self.error = str(error.get("class", ""))[:80], str(error.get("message", ""))[:4000]
        else:
            self._plain(line)

    def _plain(self, line: bytes) -> None:
        self.tail = (self.tail + line.decode("utf-8", "replace") + "\n")[-TAIL_CHARACTERS:]


def _object(text: bytes | bytearray) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def kill(pid: int, *, alive: bool) -> None:
    """Ends the child (when it is ``alive``) and everything it started: its session, and descendants that left it."""
    import psutil

    doomed: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        if alive:
            doomed = psutil.Process(pid).children(recursive=True)
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if alive:
                os.killpg(pid, signal.SIGKILL)
        doomed += [psutil.Process(other) for other in _session(pid)]
    elif alive:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).kill()
    for process in doomed:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _session(leader: int) -> Sequence[int]:
    """Processes of the session that ``leader`` began. A session's number is not given out again while it has members."""
    import psutil

    members = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if pid != leader and os.getsid(pid) == leader:
                members.append(pid)
    return members
