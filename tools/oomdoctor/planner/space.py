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
from operator import attrgetter, le

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
    """What it cannot do without, with the context and loading included."""
    short: dict[str, int]
    """Bytes missing by what is short; empty when it fits."""

    @cached_property
    def quality(self) -> Quality:
        return max(self.choices, key=attrgetter("rank")).quality if self.choices else Quality.IDENTICAL

    @cached_property
    def rank(self) -> int:
        """Of the quality class, 0 is best."""
        return max([c.rank for c in self.choices], default=Quality.IDENTICAL.rank)

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
        space.notes.append(
            f"left out: converting nothing but components that hold less than a fifth of the weights ({dropped} ways)"
        )
    ways: dict[object, Choice] = {}
    combinations = list(_combinations(core))
    legal = len(combinations)
    if len(combinations) > MOST_CORE:
        space.notes.append(
            f"left out: {len(combinations) - MOST_CORE} of {len(combinations)} ways to place and store weights, those that "
            "combine most techniques"
        )
        combinations = sorted(combinations, key=len)[:MOST_CORE]
    suiting = {c: frozenset(r for r in refining if r.agrees(c)) for c in core}
    every = frozenset(refining)
    folded = [
        (evaluate(evaluator, chosen, target), every.intersection(*(suiting[c] for c in chosen)))
        for chosen in combinations
    ]
    enough = ease_above * target.vram_bytes
    for candidate, suits in _promising(folded, space):
        agreeing = [c for c in refining if c in suits]
        space.candidates.extend(_refined(evaluator, candidate, agreeing, target, enough, ways))
    space.size = legal * math.prod(n + 1 for n in _by_technique(choices, core).values())
    return space


def _promising(
    folded: Sequence[tuple[Candidate, frozenset[Choice]]], space: Space
) -> Iterator[tuple[Candidate, frozenset[Choice]]]:
    """Puts all of them into the space; gives back those worth easing.

    What another one of the same sort beats in every stage, in time and in host memory, with no more techniques and the
    same ways of easing it, that one beats after easing as well.
    """
    front: dict[bool, list[tuple[tuple[float, ...], frozenset[Choice]]]] = {False: [], True: []}
    for candidate, suits in sorted(folded, key=lambda f: (f[0].figures.seconds, len(f[0].choices))):
        space.candidates.append(candidate)
        figures = _respects(candidate)
        better = front[any(c.quantises for c in candidate.choices)]
        for other, theirs in better:
            if all(map(le, other, figures)) and suits <= theirs:
                break
        else:
            better.append((figures, suits))
            yield candidate, suits


def _respects(candidate: Candidate) -> tuple[float, ...]:
    """Everything in which one combination can be better than another before its stages are eased."""
    f = candidate.figures
    return (
        f.seconds, f.host.peak, *(s.least for s in f.stages.values()), candidate.rank, candidate.packages,
        len(candidate.choices), f.load_vram, f.host.pinned, f.host.disk,
    )  # fmt: skip


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
    later = [{j for j in range(i + 1, len(core)) if one.agrees(core[j])} for i, one in enumerate(core)]

    def grow(chosen: tuple[Choice, ...], open_: list[int]) -> Iterator[tuple[Choice, ...]]:
        yield chosen
        for i in open_:
            yield from grow((*chosen, core[i]), [j for j in open_ if j in later[i]])

    return grow((), list(range(len(core))))


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

    ``refining``: choices that agree with all of the candidate's. ``ways`` keeps which choice was best in a situation: what eases a stage does not depend on the weights' formats.
    """
    best, own = candidate, len(candidate.choices)
    for _ in range(3):
        if not best.short and best.vram <= enough:
            return
        agreeing = [c for c in refining if _helps(c, best) and all(c.agrees(o) for o in best.choices[own:])]
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
    return max(stages, key=lambda s: stages[s].least, default=None)


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
