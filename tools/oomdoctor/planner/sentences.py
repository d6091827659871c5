"""One line and a few reasons for each strategy that is shown."""

from __future__ import annotations

from oomdoctor.planner.space import Candidate
from oomdoctor.units import duration, human
from oomdoctor.values import Estimate, Target


def summary_of(candidate: Candidate, estimate: Estimate) -> str:
    """What it does and what it costs."""
    does = " ".join(c.summary for c in sorted(candidate.choices, key=lambda c: (c.phase, c.name)))
    costs = [f"{human(estimate.vram_bytes)} on the card", f"{human(estimate.ram_bytes)} of RAM"]
    if estimate.seconds is not None:
        costs.append(f"{duration(estimate.seconds)} a call")
    return f"{does or 'Everything stays on the card; nothing is changed.'} {', '.join(costs)}."


def reasons_for(candidate: Candidate, target: Target) -> tuple[str, ...]:
    """Why this one: where its peak is, how much room is left, what makes it slower."""
    figures = candidate.figures
    out = []
    stages = figures.stages
    if stages:
        stage = max(stages, key=lambda s: stages[s].least)
        who = f" ({stages[stage].component})" if stages[stage].component else ""
        out.append(f"the peak is in {stage.value}{who}")
    if figures.reserved + target.card.context_bytes > target.vram_bytes >= candidate.vram:
        out.append("the allocator would cache more than is free, and gives that back when it must")
    spare = target.vram_bytes - candidate.vram
    out.append(f"{human(spare)} of {human(target.vram_bytes)} stay free" if spare >= 0 else f"{human(-spare)} too much")
    if figures.transfer > 0.02 * max(figures.seconds, 1e-9):
        hidden = max(0.0, figures.compute + figures.transfer - figures.seconds)
        text = f"{duration(figures.transfer)} of weight transfers"
        out.append(f"{text}, {duration(hidden)} of them behind computing" if hidden > 0.05 * figures.transfer else text)
    if candidate.packages:
        out.append("needs " + ", ".join(sorted({p for c in candidate.choices for p in c.packages})))
    return tuple(out)
