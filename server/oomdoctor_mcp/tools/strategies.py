"""``compute_strategies``."""

from __future__ import annotations

from typing import Annotated

from mcp.types import CallToolResult
from oomdoctor.units import duration, human
from oomdoctor.values import Plan, StrategyOption
from pydantic import Field

from oomdoctor_mcp import inputs
from oomdoctor_mcp.answers import LongAnswer, finished, result, running, short_option
from oomdoctor_mcp.commands import Target, Wishes, awaited, launch, received
from oomdoctor_mcp.jobs import Job
from oomdoctor_mcp.params import (
    DEFAULT_WAIT_S,
    DetailLevel,
    Gpu,
    JobId,
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
from oomdoctor_mcp.pictures import Picture, of_plan
from oomdoctor_mcp.state import Ctx, state_of
from oomdoctor_mcp.tools import tool


class PlanAnswer(Plan, LongAnswer):
    """Strategies for that card, best first."""


@tool
async def compute_strategies(
    ctx: Ctx,
    script: ScriptText = "",
    script_path: ScriptPath = "",
    gpu: Gpu = "",
    vram_gib: VramGib = None,
    ram_gib: RamGib = None,
    prefer: Prefer = "balanced",
    worst_quality: WorstQuality = "noticeable",
    no_quantisation: NoQuantisation = False,
    no_new_packages: NoNewPackages = False,
    max_slowdown: MaxSlowdown = None,
    top: Annotated[int, Field(ge=1, le=20, description="How many strategies to show.")] = 5,
    job_id: JobId = "",
    wait_s: WaitS = DEFAULT_WAIT_S,
    picture: PictureWanted = False,
    detail: DetailLevel = "concise",
) -> Annotated[CallToolResult, PlanAnswer]:
    """Ways to make the script fit a card, ranked, with peak VRAM, RAM, seconds and effect on the picture of each.

    When to use: to compare options, or to answer "will it fit". Runs generated calls on a virtual card only. Pass gpu
    (or vram_gib) and ram_gib. Then hand an id to rewrite_script. Example:
    {"script_path": "generate.py", "gpu": "rtx-3060-12gb", "ram_gib": 32}
    """

    async def begin() -> Job:
        state = state_of(ctx)
        given = inputs.script(state.roots, script, script_path)
        target = Target(gpu, vram_gib, ram_gib)
        wishes = Wishes(prefer, worst_quality, no_quantisation, no_new_packages, max_slowdown)
        options = [*target.options(), *wishes.options()]
        about = {"warnings": given.warnings, "picture": picture, "limit_bytes": target.limit_bytes()}
        return await launch(state, "compute_strategies", "strategies", given, options, about=about)

    job = await awaited(ctx, "compute_strategies", job_id, wait_s, begin)
    if job.value is None:
        return result(PlanAnswer(**running(job)))
    plan = received(Plan, job)
    rows = plan.strategies[:top]
    left = len(plan.strategies) - len(rows)
    shown = {"strategies": rows} if detail == "full" else {"strategies": tuple(map(short_option, rows)), "illegal": {}}
    more = (f"{left} more left out; a larger top shows them.",) if left > 0 else ()
    drawn = (
        await of_plan(state_of(ctx), rows, job.about["limit_bytes"]) if picture or job.about["picture"] else Picture()
    )
    said = {
        "summary": sentence(plan),
        "next_step": next_step(plan),
        "warnings": (*job.about["warnings"], *more, *drawn.warnings),
    }
    return result(PlanAnswer(**(dict(plan) | shown | finished(job) | said)), drawn.images)


def row(option: StrategyOption) -> str:
    """One strategy in one line."""
    estimate = option.estimate
    time = f", {duration(estimate.seconds)}" if estimate.seconds is not None else ""
    return (
        f"{option.id}: {human(estimate.vram_bytes)} VRAM, {human(estimate.ram_bytes)} RAM{time}, "
        f"{estimate.quality.value} picture ({option.proof})"
    )


def sentence(plan: Plan) -> str:
    """The best rows, or the honest no."""
    if plan.none_fits or not plan.strategies:
        return "Nothing fits this card and RAM." + (
            f" What would unlock it: {'; '.join(plan.unlock)}." if plan.unlock else ""
        )
    return "Fits, best first: " + "; ".join(row(option) for option in plan.strategies[:3]) + "."


def next_step(plan: Plan) -> str:
    if plan.none_fits or not plan.strategies:
        return "Tell the person what would unlock it, cheapest first, and ask which they accept."
    return f"Call rewrite_script with strategy={plan.strategies[0].id!r}, then verify_script with the patched script."
