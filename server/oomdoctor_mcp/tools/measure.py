"""``measure_components``."""

from __future__ import annotations

from typing import Annotated

from mcp.types import CallToolResult
from oomdoctor.units import human
from oomdoctor.values import Component, Measurement

from oomdoctor_mcp import inputs
from oomdoctor_mcp.answers import LongAnswer, finished, result, running
from oomdoctor_mcp.commands import awaited, launch, received
from oomdoctor_mcp.jobs import Job
from oomdoctor_mcp.params import DEFAULT_WAIT_S, DetailLevel, JobId, ScriptPath, ScriptText, WaitS
from oomdoctor_mcp.state import Ctx, state_of
from oomdoctor_mcp.tools import tool


class MeasurementAnswer(Measurement, LongAnswer):
    """What the pipeline weighs and what one call of it needs."""

    pipeline_class: str | None = None  # type: ignore[assignment]  # not known while the job runs
    model: str | None = None  # type: ignore[assignment]


@tool
async def measure_components(
    ctx: Ctx,
    script: ScriptText = "",
    script_path: ScriptPath = "",
    job_id: JobId = "",
    wait_s: WaitS = DEFAULT_WAIT_S,
    detail: DetailLevel = "concise",
) -> Annotated[CallToolResult, MeasurementAnswer]:
    """Size of every component of the script's pipeline, and the memory that each stage of its call needs besides.

    When to use: to see where the memory goes, before or instead of a cure. Runs one call, generated from the script,
    on a virtual card without limit: no GPU, no weights, no download, none of the script's own code. Takes seconds.
    Not needed before compute_strategies or fix_oom, which measure by themselves.
    """

    async def begin() -> Job:
        state = state_of(ctx)
        given = inputs.script(state.roots, script, script_path)
        return await launch(state, "measure_components", "measure", given, (), about={"warnings": given.warnings})

    job = await awaited(ctx, "measure_components", job_id, wait_s, begin)
    if job.value is None:
        return result(MeasurementAnswer(**running(job)))
    found = received(Measurement, job)
    shown = found
    if detail == "concise":
        parts = tuple(part.model_copy(update={"blocks": ()}) for part in found.components)
        shown = found.model_copy(update={"components": parts, "sources": ()})
    said = {
        "summary": _sentence(found),
        "next_step": "Call compute_strategies with the same script and the card to see what fits.",
        "warnings": (*job.about.get("warnings", ()), *found.assumptions),
    }
    return result(MeasurementAnswer(**(dict(shown) | {"assumptions": ()} | finished(job) | said)))


def _sentence(found: Measurement) -> str:
    def weight(part: Component) -> str:
        return f"{part.name} {human(part.loaded_bytes)}"

    largest = sorted(found.components, key=lambda part: -part.loaded_bytes)
    stages = sorted(found.stages, key=lambda use: -use.activation_bytes)
    activations = (
        f" Besides weights, {stages[0].stage.value} needs the most: {human(stages[0].activation_bytes)}."
        if stages
        else ""
    )
    peak = (
        f" With everything on the card the peak is {human(found.peak_allocated_bytes)}."
        if found.peak_allocated_bytes
        else ""
    )
    return (
        f"{found.pipeline_class} {found.model}: {human(found.weights_bytes)} of weights "
        f"({', '.join(weight(part) for part in largest[:5])}).{activations}{peak}"
    )
