"""From figures to an estimate, and whether it fits: free memory, context, margin, host memory, pinned cap, disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from oomdoctor.planner.choices import Choice
from oomdoctor.planner.evaluator import Evaluator, Figures, stage_peaks
from oomdoctor.planner.rates import DISK_BYTES_PER_SECOND, PIN_BYTES_PER_SECOND
from oomdoctor.techniques.effects import Attention, ChunkFeedForward
from oomdoctor.units import MIB, human
from oomdoctor.values import Estimate, Quality, Target

VRAM_MARGIN_SHARE = 0.03
VRAM_MARGIN_FLOOR = 192 * MIB
RAM_MARGIN_SHARE = 0.05
"""Of the estimate: what is added before comparing with available host memory."""


def vram_margin(vram: int) -> int:
    """What is added to an estimate before it is compared with free memory."""
    return max(VRAM_MARGIN_FLOOR, int(vram * VRAM_MARGIN_SHARE))


def needed_vram(figures: Figures, context_bytes: int) -> int:
    """What loading and running cannot do without, the context included, margin excluded."""
    return max(figures.least, figures.load_vram) + context_bytes


def taken_vram(figures: Figures, context_bytes: int, free: int | None) -> int:
    """What it takes of a card with so much free: the allocator keeps caches only as long as there is room."""
    least, most = needed_vram(figures, context_bytes), max(figures.reserved, figures.load_vram) + context_bytes
    return most if free is None else min(most, max(least, free - vram_margin(least)))


def on_machine(figures: Figures, target: Target) -> Figures:
    """The figures on a machine with that much RAM: weights that stay in the checkpoint's file are read again in every
    forward where the page cache cannot keep them."""
    room = target.ram_bytes - figures.host.peak
    reading = sum(read for waiting, read in figures.cycles if waiting > room) / DISK_BYTES_PER_SECOND
    if not reading:
        return figures
    return replace(figures, seconds=figures.seconds + reading, transfer=figures.transfer + reading)


def shortfalls(figures: Figures, target: Target) -> dict[str, int]:
    """Bytes that are missing, by what is short: ``vram``, ``ram``, ``pinned``, ``disk``; empty when it fits."""
    need = needed_vram(figures, target.card.context_bytes)
    out = {
        "vram": need + vram_margin(need) - target.vram_bytes,
        "ram": int(figures.host.peak * (1 + RAM_MARGIN_SHARE)) - target.ram_bytes,
    }
    if target.pinned_cap_bytes is not None:
        out["pinned"] = figures.host.pinned - target.pinned_cap_bytes
    if target.disk_free_bytes is not None:
        out["disk"] = figures.host.disk - target.disk_free_bytes
    return {what: missing for what, missing in out.items() if missing > 0}


def estimate_of(
    evaluator: Evaluator, figures: Figures, choices: Sequence[Choice], target: Target | None, resident_seconds: float
) -> Estimate:
    """The public form of the figures."""
    card = evaluator.card
    timed = evaluator.timed
    least = needed_vram(figures, card.context_bytes)
    vram = taken_vram(figures, card.context_bytes, None if target is None else target.vram_bytes)
    quality = max((c.quality for c in choices), key=lambda q: q.rank, default=Quality.IDENTICAL)
    first = figures.seconds + figures.first_extra + figures.host.pinned / PIN_BYTES_PER_SECOND
    return Estimate(
        vram_bytes=vram,
        least_vram_bytes=least,
        allocated_bytes=figures.allocated,
        ram_bytes=figures.host.peak,
        pinned_bytes=figures.host.pinned,
        load_vram_bytes=figures.load_vram,
        load_ram_bytes=figures.host.load,
        disk_bytes=figures.host.disk,
        seconds=figures.seconds if timed else None,
        first_seconds=first if timed else None,
        transfer_seconds=figures.transfer,
        compute_seconds=figures.compute if timed else None,
        overlap_seconds=max(0.0, figures.compute + figures.transfer - figures.seconds) if timed else None,
        unpack_seconds=figures.unpack if timed else None,
        compile_seconds=figures.first_extra if timed else None,
        slowdown=figures.seconds / resident_seconds if timed and resident_seconds > 0 else None,
        quality=quality,
        stages=stage_peaks(figures, timed),
        margin_bytes=vram_margin(least),
        new_packages=tuple(dict.fromkeys(p for c in choices for p in c.packages)),
        rests_on=_rests_on(evaluator),
        leaves_out=_leaves_out(evaluator, choices),
        fits=None if target is None else not shortfalls(figures, target),
    )


def _rests_on(evaluator: Evaluator) -> tuple[str, ...]:
    measurement, card = evaluator.measurement, evaluator.card
    out = [
        "component and stage totals; no run was traced"
        if evaluator.coarse
        else f"a traced run of {evaluator.index.rows} events on an unlimited virtual card",
        "reserved memory as that run's allocator held it"
        if evaluator.held.measured
        else "reserved memory by published shares of held over needed, per stage",
        *evaluator.rates.assumed,
        f"context of {human(card.context_bytes)} outside PyTorch's allocator",
    ]
    if evaluator.timed and measurement.timed_on and measurement.timed_on != card.name:
        how = f"scaled by {evaluator.scale:.2f}" if evaluator.scale != 1.0 else "not scaled: its rates are not known"
        out.append(f"compute seconds of {measurement.timed_on}, {how}")
    return tuple(out)


def _leaves_out(evaluator: Evaluator, choices: Sequence[Choice]) -> tuple[str, ...]:
    out = []
    kinds = {k for c in choices for k in c.kinds}
    if Attention in kinds:
        out.append("memory of another attention kernel: the traced one is assumed")
    if ChunkFeedForward in kinds:
        out.append("what chunked feed-forward layers save")
    if not evaluator.timed:
        out.append("compute seconds: the measurement was not timed")
    return tuple(out)
