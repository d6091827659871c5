"""``fix_oom``."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.types import CallToolResult
from oomdoctor.errors import TrialFailed
from oomdoctor.values import Cure, Strategy
from pydantic import Field

from oomdoctor_mcp import inputs
from oomdoctor_mcp.answers import (
    LongAnswer,
    finished,
    result,
    running,
    short_diagnosis,
    short_option,
    short_trial,
)
from oomdoctor_mcp.commands import Target, awaited, launch
from oomdoctor_mcp.jobs import Job
from oomdoctor_mcp.params import (
    DEFAULT_WAIT_S,
    DetailLevel,
    Gpu,
    JobId,
    LogPath,
    LogText,
    Prefer,
    RamGib,
    ScriptPath,
    ScriptText,
    VramGib,
    WaitS,
)
from oomdoctor_mcp.state import Ctx, state_of
from oomdoctor_mcp.tools import tool
from oomdoctor_mcp.tools.diagnose import sentence as diagnosis_sentence
from oomdoctor_mcp.tools.verify import sentence as trial_sentence

SHOWN = 4
"""Alternatives in a concise answer."""


class CureAnswer(Cure, LongAnswer):
    """Diagnosis, patch and proof, or why nothing fits."""

    why: str | None = None  # type: ignore[assignment]  # not known while the job runs
    strategy_id: str | None = None
    """The chosen strategy as rewrite_script takes it."""


@tool
async def fix_oom(
    ctx: Ctx,
    script: ScriptText = "",
    script_path: ScriptPath = "",
    traceback: LogText = "",
    traceback_path: LogPath = "",
    gpu: Gpu = "",
    vram_gib: VramGib = None,
    ram_gib: RamGib = None,
    prefer: Prefer = "balanced",
    run_script: Annotated[
        bool,
        Field(
            description="Prove with the script itself instead of a call generated from it: executes its code with the "
            "person's rights, so it needs a server started with --allow-exec; ask the person first."
        ),
    ] = False,
    job_id: JobId = "",
    wait_s: WaitS = DEFAULT_WAIT_S,
    detail: DetailLevel = "concise",
) -> Annotated[CallToolResult, CureAnswer]:
    """The whole cure in one call: diagnose, measure, choose, patch, and prove the patch on a virtual card.

    When to use: first, whenever someone has a diffusers script that runs out of GPU memory. Give the script, the
    traceback when there is one, the card (or vram_gib) and the RAM. Returns the smallest patch that fits, as a diff
    and as the whole script, with the trial that proves it; writes nothing. Takes 5 to 60 seconds. Example:
    {"script_path": "generate.py", "traceback": "Traceback ...", "gpu": "RTX 3060", "ram_gib": 32}
    """

    async def begin() -> Job:
        state = state_of(ctx)
        given = inputs.script(state.roots, script, script_path)
        log, notes = inputs.log(state.roots, traceback, traceback_path)
        options = [*Target(gpu, vram_gib, ram_gib).options(), f"--prefer={prefer}"]
        about = {"warnings": (*given.warnings, *notes), "run_script": run_script}
        return await launch(state, "fix_oom", "fix", given, options, traceback=log, executes=run_script, about=about)

    job = await awaited(ctx, "fix_oom", job_id, wait_s, begin)
    if job.value is None:
        return result(CureAnswer(**running(job)))
    cure = Cure.model_validate(job.value)
    if not job.about["run_script"] and any(t and t.ran == "script" for t in (cure.trial, cure.original_trial)):
        raise TrialFailed(
            "The script itself was run although only generated calls were asked for. Report this as a bug."
        )
    shown = dict(cure) if detail == "full" else _short(cure)
    said = {
        "summary": _sentence(cure),
        "next_step": _next(cure),
        "warnings": (*job.about["warnings"], *cure.notes, *(cure.patch.warnings if cure.patch else ())),
        "strategy_id": _id(cure.strategy),
    }
    return result(CureAnswer(**(shown | {"notes": ()} | finished(job) | said)))


def _id(strategy: Strategy | None) -> str | None:
    return strategy.id if strategy is not None else None


def _short(cure: Cure) -> dict[str, Any]:
    return dict(cure) | {
        "diagnosis": short_diagnosis(cure.diagnosis) if cure.diagnosis else None,
        "original_trial": short_trial(cure.original_trial) if cure.original_trial else None,
        "trial": short_trial(cure.trial) if cure.trial else None,
        "alternatives": tuple(map(short_option, cure.alternatives[:SHOWN])),
        "explanation": "",
    }


def _sentence(cure: Cure) -> str:
    parts = [diagnosis_sentence(cure.diagnosis)] if cure.diagnosis else []
    if cure.none_fits:
        parts.append(f"Nothing fits. {cure.why}")
        parts += [f"What would unlock it: {'; '.join(cure.unlock)}."] if cure.unlock else []
    elif cure.strategy is not None:
        parts.append(f"Cure: {cure.strategy.id}. {cure.why}")
        parts += [f"Before: {trial_sentence(cure.original_trial)}"] if cure.original_trial else []
        parts += [f"After: {trial_sentence(cure.trial)}"] if cure.trial else []
    else:
        parts.append(cure.why)
    return " ".join(parts)


def _next(cure: Cure) -> str:
    if cure.none_fits:
        return "Tell the person what would unlock it, cheapest first, and ask which they accept."
    if cure.patch is None or not cure.patch.changed:
        return "There is nothing to patch: tell the person why, as said in summary."
    by_hand = " Then do what patch.by_hand lists." if cure.patch.by_hand else ""
    proof = " The trial did not finish: say so, and do not call the patch proven." if _unproven(cure) else ""
    return (
        "Show the person patch.diff and the figures, and write patch.source to their file (or call rewrite_script with "
        f"strategy_id and output_path).{by_hand}{proof}"
    )


def _unproven(cure: Cure) -> bool:
    return cure.trial is None or cure.trial.outcome != "ok"
