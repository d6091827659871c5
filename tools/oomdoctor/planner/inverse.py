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

_PIXEL_STEP = 16
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
    short = min(shape.height, shape.width)

    def pixels(steps: int) -> float:
        return (steps * _PIXEL_STEP / short) ** 2

    most = _last(lambda n: fits_at(evaluator, scenario, Scale(pixels=pixels(n)), target),
                 math.ceil(short * _LARGEST_FACTOR**0.5 / _PIXEL_STEP))  # fmt: skip
    if not most:
        return None
    height, width = (_down(side * most * _PIXEL_STEP / short) for side in (shape.height, shape.width))
    return LargestJob(
        dimension="resolution",
        height=height,
        width=width,
        factor=height * width / (shape.height * shape.width),
        capped=most * _PIXEL_STEP >= short * _LARGEST_FACTOR**0.5,
    )


def _count(
    evaluator: Evaluator, scenario: Scenario, shape: CallShape, target: Target, dimension: str, now: int
) -> LargestJob | None:
    top = int(now * _LARGEST_FACTOR)

    def scale(n: int) -> Scale:
        return Scale(frames=n / now) if dimension == "frames" else Scale(batch=n / now)

    most = _last(lambda n: fits_at(evaluator, scenario, scale(n), target), top)
    if not most:
        return None
    frames, batch = (most, None) if dimension == "frames" else (None, most)
    return LargestJob(dimension=dimension, frames=frames, batch=batch, factor=most / now, capped=most == top)


def _last(holds: Callable[[int], bool], top: int) -> int:
    """The largest n in 1..top for which it holds, given that it holds up to some n; 0 when it never does."""
    low, high = 0, top + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _down(side: float) -> int:
    return max(_PIXEL_STEP, int(side) // _PIXEL_STEP * _PIXEL_STEP)


def card_bytes(figures: Figures, context_bytes: int) -> int:
    """Free memory that a card must have for the figures, margin included."""
    need = needed_vram(figures, context_bytes)
    return need + vram_margin(need)


def smallest_card(evaluator: Evaluator, effects: Iterable[Effect], cards: Sequence[Card]) -> Card | None:
    """The card with the least memory that holds it when nothing else runs there; None when none of them does."""
    figures = evaluator.fold(scenario_of(effects))
    fitting = [c for c in cards if card_bytes(figures, c.context_bytes) <= c.total_bytes]
    return min(fitting, key=lambda c: (c.total_bytes, c.name), default=None)
