"""``compute_strategies``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

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
    About,
    DetailLevel,
    Gpu,
    GpuCount,
    JobId,
    MaxSlowdown,
    NoNewPackages,
    NoQuantisation,
    PictureWanted,
    Prefer,
    Questions,
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

MOST_SHOWN = 20


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
    gpu_count: GpuCount = None,
    about: About = "",
    ask: Questions = [],  # noqa: B006 - never changed
    top: Annotated[int, Field(ge=1, le=MOST_SHOWN, description="How many strategies to show.")] = 5,
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
        options = [*target.options(), *wishes.options(), f"--top={top}"]
        options += [f"--gpu-count={gpu_count}"] if gpu_count is not None else []
        options += [f"--strategy={about.strip()}"] if about.strip() else []
        options += [f"--{question.replace('_', '-')}" for question in sorted(set(ask))]
        options += ["--detail"] if detail == "full" else []
        kept = {"warnings": given.warnings, "picture": picture, "limit_bytes": target.limit_bytes()}
        return await launch(state, "compute_strategies", "strategies", given, options, about=kept)

    job = await awaited(ctx, "compute_strategies", job_id, wait_s, begin)
    if job.value is None:
        return result(PlanAnswer(**running(job)))
    plan = received(Plan, job)
    rows = plan.strategies[:top]
    left = len(plan.strategies) - len(rows)
    shown = {"strategies": rows} if detail == "full" else _short(plan, rows)
    more = (f"{left} more left out; a larger top shows them.",) if left > 0 else ()
    drawn = (
        await of_plan(state_of(ctx), rows, job.about["limit_bytes"]) if picture or job.about["picture"] else Picture()
    )
    said = {
        "summary": " ".join([sentence(plan), *answers(plan)]),
        "next_step": next_step(plan),
        "warnings": (*job.about["warnings"], *more, *drawn.warnings),
    }
    return result(PlanAnswer(**(dict(plan) | shown | finished(job) | said)), drawn.images)


def _short(plan: Plan, rows: Sequence[StrategyOption]) -> dict[str, Any]:
    """Rows of tables instead of whole estimates, except of the strategy that was asked about."""
    return {
        "strategies": tuple(map(short_option, rows)),
        "pareto": tuple(map(short_option, plan.pareto)),
        "illegal": {},
    }


def answers(plan: Plan) -> list[str]:
    """A sentence for each question that was asked besides."""
    said = []
    if plan.subject is not None:
        said.append(f"{row(plan.subject)}: {'fits' if plan.subject.estimate.fits else 'does not fit'}.")
    if plan.largest:
        most = ", ".join(
            f"{job.width}x{job.height}"
            if job.dimension == "resolution"
            else f"{job.dimension} {job.frames or job.batch}"
            for job in plan.largest
        )
        said.append(f"At most, each alone: {most}.")
    if plan.smallest_card is not None:
        need = plan.smallest_card
        has = need.label or "no single card of the catalogue"
        said.append(f"{human(need.bytes)} of free VRAM needed; smallest card that has it: {has}.")
    fitting = [s for s in plan.spreadings if s.fits]
    if plan.spreadings:
        ways = ", ".join(f"{s.kind} ({human(s.vram_bytes)} on the fullest)" for s in fitting) or "none fits"
        said.append(f"Over several cards, unchanged otherwise: {ways}.")
    return said


def row(option: StrategyOption) -> str:
    """One strategy in one line."""
    estimate = option.estimate
    needs = estimate.least_vram_bytes
    caches = option.proof == "estimated" and needs is not None and needs < 0.98 * estimate.vram_bytes
    least = f" (at least {human(needs)})" if caches else ""
    time = f", {duration(estimate.seconds)}" if estimate.seconds is not None else ""
    return (
        f"{option.id}: {human(estimate.vram_bytes)} VRAM{least}, {human(estimate.ram_bytes)} RAM{time}, "
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
