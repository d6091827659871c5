"""``fix_oom``."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.types import CallToolResult
from oomdoctor.explain import stage_words
from oomdoctor.values import Cure, Strategy, Trial
from pydantic import Field

from oomdoctor_mcp import inputs
from oomdoctor_mcp.answers import (
    LongAnswer,
    finished,
    result,
    running,
    short_diagnosis,
    short_option,
    short_patch,
    short_trial,
    shortest_trial,
)
from oomdoctor_mcp.commands import Target, Wishes, awaited, held, launch, received
from oomdoctor_mcp.jobs import Job
from oomdoctor_mcp.params import (
    DEFAULT_WAIT_S,
    DetailLevel,
    Gpu,
    JobId,
    LogPath,
    LogText,
    MaxSlowdown,
    NoNewPackages,
    NoQuantisation,
    PictureWanted,
    Prefer,
    RamGib,
    ScriptPath,
    ScriptText,
    VramGib,
    WaitS,
    WorstQuality,
)
from oomdoctor_mcp.pictures import Picture, of_trials
from oomdoctor_mcp.state import Ctx, state_of
from oomdoctor_mcp.tools import tool
from oomdoctor_mcp.tools.diagnose import sentence as diagnosis_sentence
from oomdoctor_mcp.tools.verify import sentence as trial_sentence

SHOWN = 3
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
    worst_quality: WorstQuality = "noticeable",
    no_quantisation: NoQuantisation = False,
    no_new_packages: NoNewPackages = False,
    max_slowdown: MaxSlowdown = None,
    run_script: Annotated[
        bool,
        Field(
            description="Prove with the script itself instead of a call generated from it. It runs in a sandbox (no "
            "writes, no network), or with the person's rights on a server started with --allow-exec; ask first."
        ),
    ] = False,
    job_id: JobId = "",
    wait_s: WaitS = DEFAULT_WAIT_S,
    picture: PictureWanted = False,
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
        wishes = Wishes(prefer, worst_quality, no_quantisation, no_new_packages, max_slowdown)
        options = [*Target(gpu, vram_gib, ram_gib).options(), *wishes.options()]
        about = {"warnings": (*given.warnings, *notes), "executes": run_script, "picture": picture}
        return await launch(state, "fix_oom", "fix", given, options, traceback=log, executes=run_script, about=about)

    job = await awaited(ctx, "fix_oom", job_id, wait_s, begin)
    if job.value is None:
        return result(CureAnswer(**running(job)))
    cure = received(Cure, job)
    state = state_of(ctx)
    trials = {"As it is": cure.original_trial, "Patched": cure.trial}
    for trial in filter(None, trials.values()):
        held(state, trial, job.about["executes"])
    drawn = await of_trials(state, trials) if picture or job.about["picture"] else Picture()
    shown, left_out = (dict(cure), ()) if detail == "full" else _short(cure)
    said = {
        "summary": _sentence(cure),
        "next_step": _next(cure),
        "warnings": (
            *job.about["warnings"],
            *(cure.patch.warnings if cure.patch else ()),
            *left_out,
            *drawn.warnings,
        ),
        "strategy_id": _id(cure.strategy),
    }
    return result(CureAnswer(**(shown | finished(job) | said)), drawn.images)


def _id(strategy: Strategy | None) -> str | None:
    return strategy.id if strategy is not None else None


def _short(cure: Cure) -> tuple[dict[str, Any], tuple[str, ...]]:
    patch, left_out = short_patch(cure.patch) if cure.patch else (None, ())
    others = tuple(option for option in cure.alternatives if option.id != _id(cure.strategy))
    return dict(cure) | {
        "diagnosis": short_diagnosis(cure.diagnosis) if cure.diagnosis else None,
        "strategy": None,
        "why": None,
        "patch": patch,
        "original_trial": shortest_trial(cure.original_trial) if cure.original_trial else None,
        "trial": short_trial(cure.trial) if cure.trial else None,
        "alternatives": tuple(map(short_option, others[:SHOWN])),
        "explanation": "",
    }, left_out


def _sentence(cure: Cure) -> str:
    if cure.diagnosis is not None and not cure.diagnosis.is_oom:
        return diagnosis_sentence(cure.diagnosis)
    parts = [f"Why it died: {cure.diagnosis.cause}"] if cure.diagnosis else []
    if cure.none_fits or cure.strategy is None:
        unsaid = [words for words in cure.unlock if words not in cure.why]
        more = [f"What would unlock it: {'; '.join(unsaid)}."] if unsaid else []
        return " ".join([*parts, cure.why, *more])
    parts.append(f"Cure: {cure.why}")
    parts += [f"Before the patch: {_ended(cure.original_trial)}"] if cure.original_trial else []
    parts += [f"After it: {trial_sentence(cure.trial)}"] if cure.trial else []
    return " ".join(parts)


def _ended(original: Trial) -> str:
    """Without the cause, which has been said."""
    if original.outcome == "oom" and original.diagnosis is not None:
        return f"out of memory on {original.device} too, {stage_words(original.diagnosis.stage)}."
    return trial_sentence(original)


def _next(cure: Cure) -> str:
    if cure.diagnosis is not None and not cure.diagnosis.is_oom:
        return cure.diagnosis.next_step
    if cure.none_fits:
        return "Tell the person what would unlock it, cheapest first, and ask which they accept."
    if cure.patch is None or not cure.patch.changed:
        return "There is nothing to patch: tell the person why, as said in summary."
    by_hand = " Then tell them what patch.by_hand lists: it has to be done by hand." if cure.patch.by_hand else ""
    proof = " The trial did not finish: say so, and do not call the patch proven." if _unproven(cure) else ""
    return (
        "Show the person patch.diff and the figures of summary, and ask whether to apply it; then write patch.source to "
        f"their file, or call rewrite_script with strategy=strategy_id and a new output_path.{by_hand}{proof}"
    )


def _unproven(cure: Cure) -> bool:
    return cure.trial is None or cure.trial.outcome != "ok"
