"""From a tool's arguments to an argument list of our command line, started as a job or joined if it already runs.

Values go in as ``--option=value`` and files as absolute paths of ours, so nothing a client writes can become an option.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
from oomdoctor.errors import NoConsent, TrialFailed
from oomdoctor.units import GIB
from oomdoctor.values import Trial, Value
from pydantic import ValidationError

from oomdoctor_mcp.children import Command
from oomdoctor_mcp.inputs import ScriptInput
from oomdoctor_mcp.jobs import Job
from oomdoctor_mcp.state import Ctx, State, report_to, state_of


@dataclass(frozen=True)
class Target:
    """For which machine."""

    gpu: str = ""
    vram_gib: float | None = None
    ram_gib: float | None = None

    def options(self) -> list[str]:
        """For the command line. Raises :class:`UnknownCard`, so that a misspelt card costs no waiting."""
        self.limit_bytes()
        found = [f"--gpu={self.gpu}"] if self.gpu.strip() else []
        found += [f"--vram={self.vram_gib:g}"] if self.vram_gib is not None else []
        return found + ([f"--ram={self.ram_gib:g}"] if self.ram_gib is not None else [])

    def limit_bytes(self) -> int | None:
        """VRAM of the card, None when only the child can find out."""
        from oomdoctor.hardware import card

        named = self.gpu.strip().lower() not in ("", "auto")
        total = card(self.gpu).total_bytes if named else None
        return int(self.vram_gib * GIB) if self.vram_gib is not None else total


@dataclass(frozen=True)
class Wishes:
    """What the person wants of a cure."""

    prefer: str
    worst_quality: str
    no_quantisation: bool
    no_new_packages: bool
    max_slowdown: float | None

    def options(self) -> list[str]:
        """For the command line."""
        found = [f"--prefer={self.prefer}", f"--worst-quality={self.worst_quality}"]
        found += ["--no-quantisation"] if self.no_quantisation else []
        found += ["--no-new-packages"] if self.no_new_packages else []
        return found + ([f"--max-slowdown={self.max_slowdown:g}"] if self.max_slowdown is not None else [])


async def launch(
    state: State,
    tool: str,
    verb: str,
    script: ScriptInput,
    options: Sequence[str],
    *,
    traceback: str = "",
    executes: bool = False,
    real: bool = False,
    about: dict[str, Any] | None = None,
) -> Job:
    """Starts ``oom-doctor VERB SCRIPT OPTIONS``, or joins the job that already does just that.

    ``executes``: the user's own file runs; ``real``: on this machine's GPU. Without consent at the server's start the
    file runs in a verified sandbox or not at all (:class:`NoConsent`). Raises what reading the script raises, too: a
    bad script never gets as far as a child.
    """
    confined = executes and not state.config.allow_exec
    if confined:
        _need_sandbox(real)
    key = (
        verb,
        *options,
        _digest(script.content),
        str(script.path) if executes else "",
        _digest(traceback.encode("utf-8", "replace")),
    )
    if (running := state.jobs.running((tool, *key))) is not None:
        return running
    folder = state.scratch.new()
    try:
        copy = (await anyio.to_thread.run_sync(script.read, folder)).path
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # Whoever consents to running a script wants it to find its own modules and files.
    file = script.path if executes and script.path is not None else copy
    argv = [*state.config.command, verb, str(file), *options, "--json", "--progress"]
    if traceback.strip():
        log = folder / "traceback.txt"
        log.write_text(traceback, "utf-8", errors="replace")
        argv.append(f"--traceback={log}")
    argv += [f"--configs={place}" for place in _configs(state, script)]
    if state.config.python:
        argv.append(f"--python={state.config.python}")
    if not executes:
        argv.append("--no-exec")
    if confined:
        argv.append("--isolation=required")
    if real:
        argv.append("--real")
    command = Command(tuple(argv), folder, network=real and state.config.network)
    return state.jobs.start(tool, command, key=(tool, *key), real=real, about=about)


def _need_sandbox(real: bool) -> None:
    """Raises :class:`NoConsent` when user code cannot be run without the consent that was not given."""
    from oomdoctor.trial.sandbox import sandbox_available, why_not

    instead = (
        "Use a generated call instead (run='call', or run_script=false), which runs none of the script's code, or ask "
        "the person to start the server with --allow-exec."
    )
    if real:
        raise NoConsent(
            f"This server was started without --allow-exec, so nothing runs on this machine's GPU. {instead}"
        )
    if sandbox_available() is None:
        raise NoConsent(
            f"This server was started without --allow-exec, and scripts cannot be confined here: {why_not()}. {instead}"
        )


_V = TypeVar("_V", bound=Value)


def received(kind: type[_V], job: Job) -> _V:
    """The value of a finished job. Raises :class:`TrialFailed` when it has not the form that this process knows."""
    try:
        return kind.model_validate(job.value)
    except ValidationError as error:
        raise TrialFailed(
            "The result has another form than this server knows: oom-doctor was changed while the server was running. "
            "Ask the person to restart the MCP server, and call the tool again."
        ) from error


def held(state: State, trial: Trial, executes: bool) -> Trial:
    """``trial``, when it ran as it was asked for. Anything else is a defect that must not be shown as a result."""
    if trial.ran == "script" and not executes:
        raise TrialFailed(
            "The script itself was run although only a generated call was asked for. Report this as a bug."
        )
    if trial.ran == "script" and not state.config.allow_exec and trial.isolation != "sandbox":
        raise TrialFailed("The script was run without the sandbox that was required. Report this as a bug.")
    return trial


def _configs(state: State, script: ScriptInput) -> tuple[Path, ...]:
    """Where configs of models may lie; the script's own folder, so that a local model named relatively is found."""
    own = (script.path.parent,) if script.path is not None else ()
    return (*state.config.configs, *own)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if content else ""


async def awaited(ctx: Ctx, tool: str, job_id: str, wait_s: float, begin: Callable[[], Awaitable[Job]]) -> Job:
    """The job of ``job_id``, or the one that ``begin`` starts, after waiting for it at most ``wait_s`` seconds.

    Raises the job's error when it ended with one.
    """
    state = state_of(ctx)
    job = state.jobs.get(job_id.strip(), tool) if job_id.strip() else await begin()
    await state.jobs.wait(job, wait_s, lambda current, update: report_to(ctx, current, update))
    if job.error is not None:
        raise job.error
    return job
