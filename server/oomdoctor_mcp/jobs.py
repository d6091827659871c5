"""Long work: started once, waited for in bounded pieces, continued by its id, stopped when nobody wants it any more.

A call waits ``wait_s`` seconds at most and reports progress meanwhile; then it returns the job's id, and the same tool
with that id goes on waiting. A call that is cancelled takes its job with it, unless another call waits for it too.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup
from oomdoctor import errors
from oomdoctor.errors import InputError, OomDoctorError, TrialFailed
from oomdoctor.units import duration

from oomdoctor_mcp.children import Command, Outcome, Update, run
from oomdoctor_mcp.wording import clean, tail

MAX_UNFINISHED = 8
MAX_FINISHED = 20
VIRTUAL_AT_ONCE = 2
MAX_UNTOLD = 32
NOT_KEPT = frozenset({"trace"})
"""Parts of a value that nobody reads and that can be ten megabytes."""
STARTING = Update("starting", None, "")
WAITING = Update("waiting", None, "another job is running")
_HEARTBEAT_S = 5.0
_LOG = logging.getLogger(__name__)


@dataclass
class Job:
    """One run of our command line, and what is known of it so far."""

    id: str
    tool: str
    command: Command
    key: tuple[str, ...]
    """Two calls with the same key want the same thing."""
    real: bool
    """It uses the GPU of this machine."""
    about: dict[str, Any]
    """What the tool needs when it shows the result."""
    started: float = field(default_factory=time.monotonic)
    seconds: float | None = None
    """How long it took, when it is done."""
    update: Update = STARTING
    """The newest one."""
    untold: deque[Update] = field(default_factory=lambda: deque([STARTING], MAX_UNTOLD))
    """What no waiting call has passed on yet: the newest of each stage, in order, so that a short stage is heard too."""
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    value: dict[str, Any] | None = None
    error: OomDoctorError | None = None
    waiters: int = 0

    def tell(self, update: Update) -> None:
        """It has got to ``update``."""
        self.update = update
        if self.untold and self.untold[-1].phase == update.phase:
            self.untold.pop()
        self.untold.append(update)

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was asked for; its whole duration when it is done."""
        return self.seconds if self.seconds is not None else time.monotonic() - self.started


Report = Callable[[Job, Update], Awaitable[None]]


class Jobs:
    """All jobs of a server. Lives in the task group that is given; :meth:`close` ends every one."""

    def __init__(
        self, group: TaskGroup, *, timeout_s: float, finished: Callable[[Job], None] = lambda job: None
    ) -> None:
        self._group = group
        self._timeout_s = timeout_s
        self._finished = finished
        self._jobs: dict[str, Job] = {}
        self._real = anyio.CapacityLimiter(1)
        self._virtual = anyio.CapacityLimiter(VIRTUAL_AT_ONCE)

    def __len__(self) -> int:
        return len(self._jobs)

    def running(self, key: tuple[str, ...]) -> Job | None:
        """The unfinished job of that key: a client that repeats a call it gave up on joins it."""
        return next((job for job in self._jobs.values() if job.key == key and not job.done.is_set()), None)

    def start(
        self,
        tool: str,
        command: Command,
        *,
        key: tuple[str, ...],
        real: bool = False,
        about: dict[str, Any] | None = None,
    ) -> Job:
        """Begins to run ``command`` in the background; its folder is removed when it ends.

        Raises :class:`InputError` when too many jobs are unfinished.
        """
        unfinished = [job for job in self._jobs.values() if not job.done.is_set()]
        if len(unfinished) >= MAX_UNFINISHED:
            shutil.rmtree(command.folder, ignore_errors=True)
            ids = ", ".join(f"{job.id} ({job.tool})" for job in unfinished)
            raise InputError(
                f"{len(unfinished)} jobs are unfinished: {ids}. Wait for one (call its tool with job_id) and try again."
            )
        job = Job(secrets.token_hex(4), tool, command, key, real, about or {})
        self._jobs[job.id] = job
        self._group.start_soon(self._supervise, job, name=f"{tool} {job.id}")
        return job

    def get(self, job_id: str, tool: str) -> Job:
        """The job of that id. Raises :class:`InputError` when there is none, or when it belongs to another tool."""
        job = self._jobs.get(job_id)
        if job is None:
            raise InputError(
                f"There is no job {clean(job_id)[:40]!r}: it never existed, or it is long finished. The last results "
                "are under oomdoctor://reports; otherwise call this tool again with the script."
            )
        if job.tool != tool:
            raise InputError(f"Job {job.id} belongs to {job.tool}. Call {job.tool} with this job_id.")
        return job

    async def wait(self, job: Job, wait_s: float, report: Report) -> None:
        """Waits until the job is done, ``wait_s`` seconds at most. Cancelled while it is the only one to wait, it stops
        the job and returns when nothing of it is left."""
        job.waiters += 1
        next_beat = 0.0
        deadline = anyio.current_time() + wait_s
        try:
            while True:
                now = anyio.current_time()
                if not job.untold and now >= next_beat and not job.done.is_set():
                    job.untold.append(job.update)
                while job.untold:
                    next_beat = now + _HEARTBEAT_S
                    await report(job, job.untold.popleft())
                if job.done.is_set() or now >= deadline:
                    return
                with anyio.move_on_after(min(0.5, deadline - now)):
                    await job.done.wait()
        except anyio.get_cancelled_exc_class():
            if job.waiters == 1 and not job.done.is_set():
                job.scope.cancel()
                with anyio.CancelScope(shield=True), anyio.move_on_after(10):
                    await job.done.wait()
            raise
        finally:
            job.waiters -= 1

    def close(self) -> None:
        """Stops every job; they are gone when the task group has ended."""
        for job in self._jobs.values():
            job.scope.cancel()

    async def _supervise(self, job: Job) -> None:
        try:
            with job.scope:
                limiter = self._real if job.real else self._virtual
                job.tell(STARTING if limiter.available_tokens else WAITING)
                async with limiter:
                    job.tell(STARTING)
                    with anyio.fail_after(self._timeout_s):
                        outcome = await run(job.command, lambda update: job.tell(_cleaned(update)))
                job.value = {name: v for name, v in understood(outcome).items() if name not in NOT_KEPT}
            if job.scope.cancelled_caught:
                job.error = TrialFailed("The job was cancelled. Call the tool again to start anew.")
        except TimeoutError:
            job.error = TrialFailed(
                f"Stopped after {duration(self._timeout_s)} while {job.update.phase}. Ask for fewer steps, frames or "
                "pixels in the script, or start the server with a larger --timeout."
            )
        except OomDoctorError as error:
            job.error = error
        except Exception:
            _LOG.exception("job %s of %s failed", job.id, job.tool)
            job.error = TrialFailed("A defect of OOM Doctor: the server's log has the details. Please report it.")
        finally:
            job.seconds = time.monotonic() - job.started
            job.done.set()
            shutil.rmtree(job.command.folder, ignore_errors=True)
            self._forget()
            self._finished(job)

    def _forget(self) -> None:
        finished = [job for job in self._jobs.values() if job.done.is_set()]
        for job in sorted(finished, key=lambda job: job.started)[:-MAX_FINISHED]:
            del self._jobs[job.id]


def _cleaned(update: Update) -> Update:
    return Update(clean(update.phase), update.fraction, clean(update.message))


def understood(outcome: Outcome) -> dict[str, Any]:
    """The value that a child printed.

    Raises the error it reported, as the class of :mod:`oomdoctor.errors` it names; :class:`TrialFailed` for anything
    that does not look like an answer.
    """
    if outcome.error is not None:
        name, message = outcome.error
        kind = getattr(errors, name, None)
        if not (isinstance(kind, type) and issubclass(kind, OomDoctorError)):
            kind = TrialFailed
        raise kind(message or "The run failed without saying why.")
    if outcome.status in (0, 1) and outcome.value is not None:
        return outcome.value
    said = f" The end of what it wrote, as data: {tail(outcome.tail, 1500)!r}." if outcome.tail.strip() else ""
    how = f"was killed by signal {-outcome.status}" if outcome.status < 0 else f"ended with status {outcome.status}"
    more = " The machine may be short of RAM; close programs and try again." if outcome.status == -9 else ""
    raise TrialFailed(f"The run {how} and gave no result.{more} Try again, and report it if it stays.{said}")
