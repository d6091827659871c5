"""The questions the other way round: the largest job for a strategy, the smallest card for a job."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from oomdoctor.planner.activation import CallShape, call_shape
from oomdoctor.planner.evaluator import Evaluator, Figures
from oomdoctor.planner.fit import needed_vram, shortfalls, vram_margin
from oomdoctor.planner.scenario import Scale, Scenario, scenario_of
from oomdoctor.techniques.effects import Effect
from oomdoctor.values import Card, LargestJob, Target

_PIXEL_STEPS = (32, 16, 8)
"""Sides are changed in the largest of these steps in which the measured ones can be counted."""
_FRAME_STEPS = (8, 4)
_LARGEST_FACTOR = 64.0


def largest_jobs(evaluator: Evaluator, effects: Iterable[Effect], target: Target) -> tuple[LargestJob, ...]:
    """The largest resolution (same aspect), number of frames, and batch that fit; dimensions the call lacks are out.

    A dimension for which not even the smallest job fits is out too.
    """
    scenario = scenario_of(effects)
    shape = call_shape(evaluator.measurement)
    out = []
    if shape.pixels is not None:
        out.append(_resolution(evaluator, scenario, shape, target))
    if shape.frames is not None and shape.frames > 1:
        out.append(_count(evaluator, scenario, shape, target, "frames", shape.frames))
    out.append(_count(evaluator, scenario, shape, target, "batch", shape.batch))
    return tuple(job for job in out if job is not None)


def fits_at(evaluator: Evaluator, scenario: Scenario, scale: Scale, target: Target) -> bool:
    """The job of that scale fits."""
    return not shortfalls(evaluator.fold(replace(scenario, scale=scale)), target)


def _resolution(evaluator: Evaluator, scenario: Scenario, shape: CallShape, target: Target) -> LargestJob | None:
    assert shape.height is not None and shape.width is not None
    sides, short = (shape.height, shape.width), min(shape.height, shape.width)
    step = next((s for s in _PIXEL_STEPS if all(side % s == 0 for side in sides)), 1)

    def pixels(steps: int) -> float:
        return (steps * step / short) ** 2

    top = math.ceil(short * _LARGEST_FACTOR**0.5 / step)
    most = _last(lambda n: fits_at(evaluator, scenario, Scale(pixels=pixels(n)), target), top)
    if not most:
        return None
    height, width = (max(step, int(side * most * step / short) // step * step) for side in sides)
    return LargestJob(
        dimension="resolution",
        height=height,
        width=width,
        factor=height * width / (shape.height * shape.width),
        capped=most == top,
    )


def _count(
    evaluator: Evaluator, scenario: Scenario, shape: CallShape, target: Target, dimension: str, now: int
) -> LargestJob | None:
    # Video models take one frame and then portions of four or eight; the measured number says which.
    step = next((s for s in _FRAME_STEPS if now % s == 1), 1) if dimension == "frames" else 1
    first = 1 if step > 1 else 0
    top = int(now * _LARGEST_FACTOR) // step

    def number(steps: int) -> int:
        return steps * step + first

    def scale(n: int) -> Scale:
        return Scale(frames=number(n) / now) if dimension == "frames" else Scale(batch=number(n) / now)

    most = _last(lambda n: fits_at(evaluator, scenario, scale(n), target), top)
    if not most:
        return None
    count = number(most)
    frames, batch = (count, None) if dimension == "frames" else (None, count)
    return LargestJob(dimension=dimension, frames=frames, batch=batch, factor=count / now, capped=most == top)


def _last(holds: Callable[[int], bool], top: int) -> int:
    """The largest n in 1..top for which it holds, given that it holds up to some n; 0 when it never does."""
    low, high = 0, top + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def card_bytes(figures: Figures, context_bytes: int) -> int:
    """Free memory that a card must have for the figures, margin included."""
    need = needed_vram(figures, context_bytes)
    return need + vram_margin(need)


def smallest_card(evaluator: Evaluator, effects: Iterable[Effect], cards: Sequence[Card]) -> Card | None:
    """The card with the least memory that holds it when nothing else runs there; None when none of them does."""
    figures = evaluator.fold(scenario_of(effects))
    fitting = [c for c in cards if card_bytes(figures, c.context_bytes) <= c.total_bytes]
    return min(fitting, key=lambda c: (c.total_bytes, c.name), default=None)
