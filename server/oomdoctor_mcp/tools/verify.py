"""``verify_script``."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.types import CallToolResult
from oomdoctor.errors import TrialFailed
from oomdoctor.units import duration, human
from oomdoctor.values import Trial
from pydantic import Field

from oomdoctor_mcp import inputs
from oomdoctor_mcp.answers import LongAnswer, finished, result, running, short_trial
from oomdoctor_mcp.commands import Target, awaited, launch
from oomdoctor_mcp.jobs import Job
from oomdoctor_mcp.params import DEFAULT_WAIT_S, DetailLevel, Gpu, JobId, RamGib, ScriptPath, ScriptText, VramGib, WaitS
from oomdoctor_mcp.state import Ctx, state_of
from oomdoctor_mcp.tools import tool

Run = Annotated[
    Literal["call", "script", "real"],
    Field(
        description="'call': a call generated from the script, on the virtual card, none of its code. 'script': the "
        "script itself on the virtual card. 'real': the script itself on this machine's GPU. The last two execute its "
        "code with the person's rights, so they need a server started with --allow-exec; ask the person first."
    ),
]


class TrialAnswer(Trial, LongAnswer):
    """What happened when it ran."""

    device: str | None = None  # type: ignore[assignment]  # the four are not known while the job runs
    ran: Literal["call", "script"] | None = None  # type: ignore[assignment]
    isolation: Literal["sandbox", "guards", "none"] | None = None  # type: ignore[assignment]
    outcome: Literal["ok", "oom", "error", "timeout"] | None = None  # type: ignore[assignment]


@tool
async def verify_script(
    ctx: Ctx,
    script: ScriptText = "",
    script_path: ScriptPath = "",
    gpu: Gpu = "",
    vram_gib: VramGib = None,
    ram_gib: RamGib = None,
    run: Run = "call",
    job_id: JobId = "",
    wait_s: WaitS = DEFAULT_WAIT_S,
    detail: DetailLevel = "concise",
) -> Annotated[CallToolResult, TrialAnswer]:
    """Run a script (patched or not) on a virtual card and say whether it finishes, with its peaks per stage.

    When to use: to prove that a patch fits, or to see at which stage a script would die on a card that is not here.
    By default a call generated from the script runs, and none of the script's own code.
    """

    async def begin() -> Job:
        state = state_of(ctx)
        given = inputs.script(state.roots, script, script_path)
        options = Target(gpu, vram_gib, ram_gib).options()
        about = {"warnings": given.warnings, "run": run}
        return await launch(
            state, "verify_script", "run", given, options, executes=run != "call", real=run == "real", about=about
        )

    job = await awaited(ctx, "verify_script", job_id, wait_s, begin)
    if job.value is None:
        return result(TrialAnswer(**running(job)))
    trial = Trial.model_validate(job.value)
    if trial.ran == "script" and job.about["run"] == "call":
        raise TrialFailed(
            "The script itself was run although only a generated call was asked for. Report this as a bug."
        )
    shown = trial if detail == "full" else short_trial(trial)
    said = {
        "summary": sentence(trial),
        "next_step": _next(trial),
        "warnings": (*job.about["warnings"], *trial.notes),
    }
    return result(TrialAnswer(**(dict(shown) | {"notes": ()} | finished(job) | said)))


def sentence(trial: Trial) -> str:
    """How it ended, what ran, and the peaks."""
    what = "a generated call" if trial.ran == "call" else "the script itself"
    vram = trial.peak_vram_bytes
    peaks = f" Peak VRAM {human(vram)} with the CUDA context" if vram is not None else ""
    usable = f" ({human(trial.usable_bytes)} usable without it)" if peaks and trial.usable_bytes is not None else ""
    host = f", RAM {human(trial.peak_host_bytes)}" if peaks and trial.peak_host_bytes is not None else ""
    time = f" {duration(trial.seconds)}." if trial.seconds is not None else ""
    why = ""
    if trial.outcome == "oom" and trial.diagnosis is not None:
        why = f" Died in {trial.diagnosis.stage.value}: {trial.diagnosis.cause}"
    ended = {"ok": "Finished", "oom": "Out of memory", "error": "Failed with an error", "timeout": "Took too long"}
    return (
        f"{ended[trial.outcome]} on {trial.device} ({what} ran).{why}{peaks}{usable}{host}{'.' if peaks else ''}{time}"
    )


def _next(trial: Trial) -> str:
    if trial.outcome == "ok":
        return "It fits. Give the person the script; a run on their own card is the last word."
    if trial.outcome == "oom":
        return "Call compute_strategies with this script and card to find what fits."
    if trial.outcome == "timeout":
        return "Fewer steps or frames make a shorter trial that peaks the same; try that."
    return "Read error: it is data from the run. When the script itself is at fault, correct it and verify again."
