"""Every legal combination that matters, folded; the ones that cannot win are left out before they cost time.

The space has two layers. What decides where weights wait and in which format (the *core*) is combined in full. What
eases one stage (tiling, slicing, splitting, allocator settings) can only help a combination whose peak is in that
stage, so it is added there and skipped elsewhere: it would cost time and save nothing. What only makes a run faster
is tried on the best few.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from oomdoctor.planner.choices import Choice, loads_less
from oomdoctor.planner.evaluator import Evaluator, Figures
from oomdoctor.planner.fit import needed_vram, on_machine, shortfalls
from oomdoctor.techniques.effects import (
    AllocatorSetting,
    FrameVae,
    LoadOnce,
    Place,
    Release,
    SliceVae,
    SplitBatch,
    Store,
    TileVae,
)
from oomdoctor.values import Quality, Stage, Strategy, Target

MOST_CORE = 600
"""Core combinations that are folded; beyond it the least valuable format choices are dropped (and reported)."""
_VAE_STAGES = (Stage.VAE_DECODE, Stage.VAE_ENCODE)
_WORTH = 0.98
"""A refinement must bring the peak below this share of what it was."""


@dataclass(eq=False)
class Candidate:
    """One combination and what it costs."""

    choices: tuple[Choice, ...]
    figures: Figures
    vram: int
    """Peak with the context, loading included."""
    short: dict[str, int]
    """Bytes missing by what is short; empty when it fits."""

    @cached_property
    def quality(self) -> Quality:
        return max((c.quality for c in self.choices), key=lambda q: q.rank, default=Quality.IDENTICAL)

    @cached_property
    def rank(self) -> int:
        """Of the quality class, 0 is best."""
        return self.quality.rank

    @cached_property
    def packages(self) -> int:
        return len({p for c in self.choices for p in c.packages})

    @property
    def strategy(self) -> Strategy:
        ordered = sorted(self.choices, key=lambda c: (c.phase, c.name))
        return Strategy(applications=tuple(c.application for c in ordered))


@dataclass
class Space:
    """What was looked at."""

    candidates: list[Candidate] = field(default_factory=list)
    size: int = 0
    """Legal combinations in all, the pruned ones included."""
    notes: list[str] = field(default_factory=list)


def explore(evaluator: Evaluator, choices: Sequence[Choice], target: Target, ease_above: float = 0.0) -> Space:
    """Folds the combinations of the choices on the target.

    ``ease_above``: share of free memory above which stages are eased even where the combination fits.
    """
    space = Space()
    core = [c for c in choices if c.core]
    refining = [c for c in choices if not c.core and not c.hastens]
    core, dropped = _trimmed(evaluator, core)
    if dropped:
        space.notes.append(f"{dropped} conversions of components under a fifth of the weights alone were not tried")
    ways: dict[object, Choice] = {}
    combinations = list(_combinations(core))
    if len(combinations) > MOST_CORE:
        space.notes.append(f"{len(combinations) - MOST_CORE} combinations of more than two techniques were not folded")
        combinations = sorted(combinations, key=len)[:MOST_CORE]
    for chosen in combinations:
        candidate = evaluate(evaluator, chosen, target)
        space.candidates.append(candidate)
        enough = ease_above * target.vram_bytes
        space.candidates.extend(_refined(evaluator, candidate, refining, target, enough, ways))
    space.size = len(combinations) * math.prod(n + 1 for n in _by_technique(choices, core).values())
    return space


def evaluate(evaluator: Evaluator, chosen: tuple[Choice, ...], target: Target) -> Candidate:
    """Folds one combination."""
    figures = on_machine(evaluator.figures(e for c in chosen for e in c.effects), target)
    return Candidate(chosen, figures, needed_vram(figures, target.card.context_bytes), shortfalls(figures, target))


def hastened(evaluator: Evaluator, candidate: Candidate, choices: Sequence[Choice], target: Target) -> list[Candidate]:
    """The candidate with each choice that only makes it faster."""
    out = []
    for choice in choices:
        if choice.hastens and all(choice.agrees(c) for c in candidate.choices):
            faster = evaluate(evaluator, (*candidate.choices, choice), target)
            if faster.figures.seconds < candidate.figures.seconds:
                out.append(faster)
    return out


def _combinations(core: Sequence[Choice]) -> Iterator[tuple[Choice, ...]]:
    """All sets of choices that agree with each other, the empty one first."""

    def grow(chosen: tuple[Choice, ...], start: int) -> Iterator[tuple[Choice, ...]]:
        yield chosen
        for i in range(start, len(core)):
            if all(core[i].agrees(c) for c in chosen):
                yield from grow((*chosen, core[i]), i + 1)

    return grow((), 0)


def _trimmed(evaluator: Evaluator, core: list[Choice]) -> tuple[list[Choice], int]:
    """Without conversions of components that hardly weigh anything."""
    sizes = {n: w.component.loaded_bytes for n, w in evaluator.index.weights.items()}
    floor = 0.2 * sum(sizes.values())

    def small(choice: Choice) -> bool:
        return (
            choice.kinds == {Store} and "*" not in choice.stored and sum(sizes.get(n, 0) for n in choice.stored) < floor
        )

    kept = [c for c in core if not small(c)]
    return kept, len(core) - len(kept)


def _by_technique(choices: Sequence[Choice], core: Sequence[Choice]) -> dict[str, int]:
    out: dict[str, int] = {}
    for choice in choices:
        if choice not in core:
            out[choice.name] = out.get(choice.name, 0) + 1
    return out


def _refined(
    evaluator: Evaluator, candidate: Candidate, refining: Sequence[Choice], target: Target, enough: float,
    ways: dict[object, Choice],
) -> Iterator[Candidate]:  # fmt: skip
    """Variants that ease what is tight (the stage of the peak, fragmentation, loading), until one fits into ``enough``.

    ``ways`` keeps which choice was best in a situation: what eases a stage does not depend on the weights' formats.
    """
    best = candidate
    for _ in range(3):
        if not best.short and best.vram <= enough:
            return
        agreeing = [c for c in refining if all(c.agrees(o) for o in best.choices) and _helps(c, best)]
        modes = frozenset(e.mode for c in candidate.choices for e in c.effects if isinstance(e, Place))
        situation = (_tightest(best), frozenset(best.short), modes, tuple(agreeing))
        known = ways.get(situation)
        eased = [evaluate(evaluator, (*best.choices, c), target) for c in ([known] if known else agreeing)]
        better = [c for c in eased if c.vram < _WORTH * best.vram or _relieved(c, best)]
        if not better and known:
            eased = [evaluate(evaluator, (*best.choices, c), target) for c in agreeing]
            better = [c for c in eased if c.vram < _WORTH * best.vram or _relieved(c, best)]
        if not better:
            return
        best = min(better, key=lambda c: (bool(c.short), c.rank, c.figures.seconds, c.vram))
        ways.setdefault(situation, best.choices[-1])
        yield best


def _tightest(candidate: Candidate) -> Stage | None:
    stages = candidate.figures.stages
    return max(stages, key=lambda s: stages[s].reserved, default=None)


def _relieved(now: Candidate, before: Candidate) -> bool:
    return now.figures.host.peak < _WORTH * before.figures.host.peak


def _helps(choice: Choice, candidate: Candidate) -> bool:
    """It acts on what is tight in the candidate."""
    tightest = _tightest(candidate)
    kinds = choice.kinds
    if kinds & {TileVae, SliceVae, FrameVae} and tightest in _VAE_STAGES:
        return True
    if loads_less(choice):
        return "ram" in candidate.short
    if AllocatorSetting in kinds:
        return "vram" in candidate.short
    if kinds & {TileVae, SliceVae, FrameVae, Release, LoadOnce}:
        return False
    if SplitBatch in kinds:
        return "vram" in candidate.short
    return tightest in (Stage.DENOISE, Stage.UNKNOWN)
