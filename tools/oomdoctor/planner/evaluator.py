"""The one evaluator: folds a set of effects over one trace and says what that costs.

It knows no technique. What a technique does is in its effects (where the weights wait, in which format, how the work
is cut); what that means in bytes and seconds is worked out here, the same way for all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from oomdoctor.planner.activation import Transform, call_shape, transforms
from oomdoctor.planner.folding import Fold, Folder
from oomdoctor.planner.index import TraceIndex
from oomdoctor.planner.outline import outlined
from oomdoctor.planner.parts import PROCESS_BYTES, HostFigures, Part, host_figures, load_vram, part, unfilled
from oomdoctor.planner.rates import compute_scale, rates_of
from oomdoctor.planner.reserved import CONVERTED, HeldShares, largest_freed, stuck_bytes
from oomdoctor.planner.scenario import Holding, Scenario, scenario_of
from oomdoctor.planner.schedule import Schedule, schedule
from oomdoctor.planner.spread import Spread
from oomdoctor.techniques.effects import Effect
from oomdoctor.values import Card, Measurement, Stage, StagePeak

_Stages = tuple[tuple[str, Stage], ...]
_ScheduleKey = tuple[frozenset[str], _Stages, _Stages]


@dataclass(slots=True)
class StageFigures:
    allocated: int = 0
    reserved: int = 0
    """What the allocator holds where there is room."""
    least: int = 0
    """What it makes do with: where the card is full it gives back every segment that is free and asks anew."""
    seconds: float = 0.0
    component: str | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What a scenario costs. Bytes on the card are without the context."""

    allocated: int
    reserved: int
    least: int
    """Reserved memory that it can do with, see :class:`StageFigures`."""
    load_vram: int
    host: HostFigures
    seconds: float
    compute: float
    transfer: float
    unpack: float
    """Part of ``compute`` that converts stored weights for use."""
    first_extra: float
    """Seconds that only the first call takes on top."""
    cycles: tuple[tuple[int, int], ...]
    """By component that waits in the checkpoint's file pages: its bytes there, and bytes read in the whole run."""
    stages: dict[Stage, StageFigures] = field(default_factory=dict)


class Evaluator:
    """Folds scenarios of one measurement on one card. Keep it: what it has folded once it does not fold again."""

    def __init__(
        self, measurement: Measurement, card: Card, timed_on: Card | None = None, index: TraceIndex | None = None
    ) -> None:
        """``timed_on``: the card that the trace's seconds are of, when it is another one and known."""
        self.measurement = measurement
        self.card = card
        self.trace, self.coarse = outlined(measurement) if index is None else (index.trace, index.coarse)
        self.index = index or TraceIndex(measurement, self.trace, self.coarse)
        self.rates = rates_of(card)
        self.scale = compute_scale(timed_on, card)
        self.folder = Folder(self.index, self.rates, self.scale)
        native = scenario_of(())
        segments = sum(self.folder.total(n, native.holding(n).format, "segment") for n in self.index.weights)
        self.held = HeldShares(self.index, segments)
        self.video = (call_shape(measurement).frames or 1) > 1
        self.timed = any(t.seconds for t in self.index.tables)
        self._transforms: dict[tuple[object, ...], list[Transform]] = {}
        self._parts: dict[tuple[str, Holding], Part] = {}
        self._anonymous = _anonymous_share(measurement)
        self._schedules: dict[_ScheduleKey, Schedule] = {}

    @cached_property
    def resident_seconds(self) -> float:
        """One call with everything on the card, whether it fits or not."""
        return self.fold(scenario_of(())).seconds

    def figures(self, effects: Iterable[Effect]) -> Figures:
        """What those effects together cost."""
        return self.fold(scenario_of(effects))

    def fold(self, scenario: Scenario) -> Figures:
        parts = {name: self._part(name, scenario.holding(name)) for name in self.index.weights}
        changes = self._changes(scenario)
        moving = frozenset([n for n, p in parts.items() if p.holding.place.mode == "component"])
        arrivals = {
            n: p.holding.place.after_stage
            for n, p in parts.items()
            if p.holding.place.after_stage is not None and not p.quantised
        }
        plan = self._schedule(moving, scenario.releases, arrivals)
        fold_of = self.folder.fold
        folds = [
            fold_of(number, None if table.component is None else parts[table.component].holding, change)
            for number, (table, change) in enumerate(zip(self.index.tables, changes, strict=True))
        ]
        stages = self._peaks(scenario, parts, changes, folds, plan)
        seconds = compute = transfer = unpack = 0.0
        for table, fold in zip(self.index.tables, folds, strict=True):
            seconds += fold.seconds
            compute += fold.compute
            transfer += fold.transfer
            unpack += fold.unpack
            stages[table.stage].seconds += fold.seconds
        calls = changes[0].calls if changes else 1
        for name in plan.onloads:
            p = parts[name]
            moved = calls * self.folder.move_whole(p.holding, p.total, plan.onloads[name], plan.offloads[name])
            seconds, transfer = seconds + moved, transfer + moved
            stages[plan.first_stage[name]].seconds += moved
        cycles = [(p.cycles, p.cycles * calls * self.forwards[name]) for name, p in parts.items() if p.cycles]
        cards = scenario.gpus.count if scenario.gpus is not None and scenario.gpus.kind != "context" else 1
        return Figures(
            allocated=max([s.allocated for s in stages.values()], default=0),
            reserved=max([s.reserved for s in stages.values()], default=0),
            least=max([s.least for s in stages.values()], default=0),
            load_vram=load_vram(parts, max(1, cards)),
            host=host_figures(parts, scenario.load_once),
            seconds=seconds,
            compute=compute,
            transfer=transfer,
            unpack=unpack,
            first_extra=sum([s.first_call_seconds for s in scenario.speed]),
            cycles=tuple(cycles),
            stages=stages,
        )

    @cached_property
    def forwards(self) -> Counter[str]:
        """Component -> how often it runs in one call."""
        out: Counter[str] = Counter()
        for table in self.index.tables:
            if table.component is not None:
                out[table.component] += table.forwards
        return out

    def _peaks(
        self, scenario: Scenario, parts: dict[str, Part], changes: list[Transform], folds: list[Fold], plan: Schedule
    ) -> dict[Stage, StageFigures]:
        """Allocated and reserved peaks by stage, following what stays in the allocator's pools."""
        stages: dict[Stage, StageFigures] = {t.stage: StageFigures() for t in self.index.tables}
        spread = Spread(scenario, parts)
        expandable = scenario.expandable
        pools: dict[str, int] = {}
        stuck: dict[str, tuple[int, int]] = {}
        held = 0
        leftover = sum([p.leftover for p in parts.values()])
        # What was converted on the card and then sent away leaves its cache behind; model offloading empties it.
        away = (
            []
            if moves_whole(parts)
            else [p for p in parts.values() if p.quantised and p.holding.place.mode != "resident"]
        )
        split = [p for p in away if p.leftover and p.scattered]
        # What stays in a segment keeps all of it, whatever else the allocator gives back.
        kept = max(0, sum([p.arena - p.leftover for p in split]))
        cached = sum([p.quantised for p in away]) - leftover
        if cached:
            cached += unfilled(away)
        # Scales that stay lie all over the segment where they are large, and then nothing large fits between them.
        whole_range = sum([p.arena for p in away]) - sum([p.arena for p in split])
        for number, moment in enumerate(plan.moments):
            if number in plan.flushes:
                held = cached = whole_range = 0
                stuck.clear()
            table = self.index.tables[moment.table]
            name = table.component
            fold = folds[moment.table]
            whole, segments = spread.standing(moment, name)
            activation = fold.activation if spread.alone else spread.activation(fold, table.stage)
            shared = False
            weights_in_pool = 0
            if name is not None:
                place = parts[name].holding.place
                if place.mode in ("resident", "component"):
                    segments += parts[name].segments if spread.alone else spread.own_segments(name)
                elif place.stream:
                    pools[name] = max(pools.get(name, 0), fold.weights - fold.outside, fold.lingering)
                    shared, weights_in_pool = fold.outside > 0, fold.outside
                else:
                    shared, weights_in_pool = True, fold.weights
            allocated = leftover + whole + (fold.peak if spread.alone else activation + spread.own(fold))
            need = self.held.need(moment.table, activation, weights_in_pool, expandable)
            if name is not None and parts[name].holding.format.scratch:
                need += self.folder.scratch(name, parts[name].holding.format)
            # Weights and activations are not at their highest at the same time; in one pool they take each other's place.
            beside = fold.peak - fold.activation if spread.alone else spread.own(fold)
            streams = name is not None and parts[name].holding.place.stream
            left = 0 if not shared else min(beside, fold.outside) if streams else beside
            reach_of_stage = self.held.range_of(moment.table, activation)
            streamed = fold.weights - fold.outside if streams else 0
            # How tiles and slices would lie in one range was not seen, so they are not counted on to lie closely.
            close = need if changes[moment.table].own < 1.0 else min(need, reach_of_stage)
            # Where little room is, what comes and goes finds none in the activations' holes.
            between = max(left, weights_in_pool)
            least = leftover + kept + segments + close + between + streamed
            if expandable:
                held = max(held, need + left, cached)
                left = 0
            else:
                cut = changes[moment.table].own if self.video else 1.0
                there = [s for other, s in stuck.items() if other != name] if stuck else ()
                freed = largest_freed(there, activation) if there else 0
                reach = max(whole_range, freed)
                if reach:
                    outside = 1.0 - min(1.0, reach / max(1, reach_of_stage + between))
                    need, left = round(need * outside), round(left * outside)
                need = max(0, need - round((1.0 - CONVERTED) * max(0, cached - reach)))
                held = self.held.after(moment.table, held, need, shared, cut)
                if shared and name is not None:
                    layer = self.folder.largest_layer(name, parts[name].holding)
                    stuck[name] = max(stuck.get(name, (0, 0)), (left, layer))
                left += cached + (freed if freed > whole_range else 0)
                if there:
                    left += stuck_bytes(there, activation)
            stage = stages[table.stage]
            if allocated > stage.allocated:
                stage.allocated, stage.component = allocated, name or stage.component
            caching = max(allocated, leftover + segments + held + left + sum(pools.values()))
            stage.least = max(stage.least, min(least, caching), allocated)
            stage.reserved = max(stage.reserved, caching)
        return stages

    def _part(self, name: str, holding: Holding) -> Part:
        known = self._parts.get((name, holding))
        if known is None:
            known = self._parts[name, holding] = part(self.folder, name, holding, self._anonymous)
        return known

    def _changes(self, scenario: Scenario) -> list[Transform]:
        key = scenario.activation_key
        known = self._transforms.get(key)
        if known is None:
            known = self._transforms[key] = transforms(self.index, scenario)
        return known

    def _schedule(self, moving: frozenset[str], releases: dict[str, Stage], arrivals: dict[str, Stage]) -> Schedule:
        key = (moving, tuple(sorted(releases.items())), tuple(sorted(arrivals.items())))
        known = self._schedules.get(key)
        if known is None:
            known = self._schedules[key] = schedule(self.index, moving, releases, arrivals)
        return known


def moves_whole(parts: dict[str, Part]) -> bool:
    """Some component comes and goes as a whole."""
    return any(p.holding.place.mode == "component" for p in parts.values())


def stage_peaks(figures: Figures, timed: bool) -> tuple[StagePeak, ...]:
    """The stages of an estimate, in the order of time."""
    return tuple(
        StagePeak(
            stage=stage,
            component=peak.component,
            allocated_bytes=peak.allocated,
            reserved_bytes=peak.reserved,
            seconds=peak.seconds if timed else None,
        )
        for stage, peak in figures.stages.items()
    )


def _anonymous_share(measurement: Measurement) -> float:
    """Share of the loaded weights that is anonymous memory; a mapped checkpoint adds none until a cast copies it."""
    if measurement.load_host_bytes is None or measurement.weights_bytes <= 0:
        return 1.0
    return min(1.0, max(0, measurement.load_host_bytes - PROCESS_BYTES) / measurement.weights_bytes)
