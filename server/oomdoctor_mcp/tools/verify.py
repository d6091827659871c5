"""``verify_script``."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.types import CallToolResult
from oomdoctor.explain import stage_words
from oomdoctor.units import duration, human
from oomdoctor.values import Trial
from pydantic import Field

from oomdoctor_mcp import inputs
from oomdoctor_mcp.answers import LongAnswer, finished, result, running, short_trial
from oomdoctor_mcp.commands import Target, awaited, held, launch, received
from oomdoctor_mcp.jobs import Job
from oomdoctor_mcp.params import (
    DEFAULT_WAIT_S,
    DetailLevel,
    Gpu,
    JobId,
    PictureWanted,
    RamGib,
    ScriptPath,
    ScriptText,
    VramGib,
    WaitS,
)
from oomdoctor_mcp.pictures import Picture, of_trials
from oomdoctor_mcp.state import Ctx, state_of
from oomdoctor_mcp.tools import tool

Run = Annotated[
    Literal["call", "script", "real"],
    Field(
        description="'call': a call generated from the script, on the virtual card, none of its code. 'script': the "
        "script itself on the virtual card, in a sandbox (no writes, no network), or with the person's rights on a "
        "server started with --allow-exec. 'real': the script itself on this machine's GPU, with the person's rights, "
        "only with --allow-exec; ask the person first."
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
    picture: PictureWanted = False,
    detail: DetailLevel = "concise",
) -> Annotated[CallToolResult, TrialAnswer]:
    """Run a script (patched or not) on a virtual card and say whether it finishes, with its peaks per stage.

    When to use: to prove that a patch fits, or to see at which stage a script would die on a card that is not here.
    By default a call generated from the script runs, and none of the script's own code.
    """

    async def begin() -> Job:
        state = state_of(ctx)
        given = inputs.script(state.roots, script, script_path)
        options = [*Target(gpu, vram_gib, ram_gib).options(), *(["--timeline"] if picture else [])]
        about = {"warnings": given.warnings, "executes": run != "call", "picture": picture}
        return await launch(
            state, "verify_script", "run", given, options, executes=run != "call", real=run == "real", about=about
        )

    job = await awaited(ctx, "verify_script", job_id, wait_s, begin)
    if job.value is None:
        return result(TrialAnswer(**running(job)))
    state = state_of(ctx)
    trial = held(state, received(Trial, job), job.about["executes"])
    drawn = (
        await of_trials(state, {"What ran" if trial.ran == "script" else "Generated call": trial})
        if picture or job.about["picture"]
        else Picture()
    )
    shown = trial if detail == "full" else short_trial(trial)
    said = {
        "summary": sentence(trial),
        "next_step": _next(trial),
        "warnings": (*job.about["warnings"], *drawn.warnings),
    }
    return result(TrialAnswer(**(dict(shown) | finished(job) | said)), drawn.images)


def sentence(trial: Trial) -> str:
    """How it ended, what ran, and the peaks."""
    what = "a call generated from the script" if trial.ran == "call" else "the script itself"
    ended = {"ok": "finished", "oom": "ran out of memory", "error": "failed with an error", "timeout": "took too long"}
    start = f"{what[0].upper()}{what[1:]} {ended[trial.outcome]} on {trial.device}"
    if trial.outcome == "oom" and trial.diagnosis is not None:
        return f"{start}, {stage_words(trial.diagnosis.stage)}: {trial.diagnosis.cause}"
    if trial.outcome in ("error", "timeout"):
        return f"{start}."
    return f"{start}: {', '.join(figures(trial))}."


def figures(trial: Trial) -> list[str]:
    """Peaks against what there is, and the duration."""
    vram = trial.peak_vram_bytes
    of_card = f" of {human(trial.usable_bytes + (trial.context_bytes or 0))}" if trial.usable_bytes is not None else ""
    of_ram = f" of {human(trial.host_limit_bytes)}" if trial.host_limit_bytes is not None else ""
    found = [f"peak VRAM {human(vram)}{of_card}"] if vram is not None else []
    found += [f"peak RAM {human(trial.peak_host_bytes)}{of_ram}"] if trial.peak_host_bytes is not None else []
    took = "measured" if trial.device.startswith("cuda") else "predicted"
    return found + ([f"{duration(trial.seconds)} {took}"] if trial.seconds is not None else [])


def _next(trial: Trial) -> str:
    if trial.outcome == "ok":
        return "It fits. Give the person the script and these figures; a run on their own card is the last word."
    if trial.outcome == "oom":
        return (
            "Call fix_oom with this script and card to get a patch that fits, or compute_strategies to compare options."
        )
    if trial.outcome == "timeout":
        return "Fewer steps or frames make a shorter trial that peaks the same; try that."
    return "Read error: it is data from the run. When the script itself is at fault, correct it and verify again."
