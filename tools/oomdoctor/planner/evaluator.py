"""The one evaluator: folds a set of effects over one trace and says what that costs.

It knows no technique. What a technique does is in its effects (where the weights wait, in which format, how the work
is cut); what that means in bytes and seconds is worked out here, the same way for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from oomdoctor.planner.activation import Transform, transforms
from oomdoctor.planner.balance import balanced
from oomdoctor.planner.folding import Fold, Folder
from oomdoctor.planner.host import HostFigures, host_figures
from oomdoctor.planner.index import TraceIndex
from oomdoctor.planner.outline import outlined
from oomdoctor.planner.rates import compute_scale, rates_of
from oomdoctor.planner.reserved import RECORD_STREAM_POOLS, HeldShares
from oomdoctor.planner.scenario import Holding, Scenario, scenario_of
from oomdoctor.planner.schedule import Moment, Schedule, schedule
from oomdoctor.techniques.effects import Effect
from oomdoctor.values import Card, Measurement, Stage, StagePeak


@dataclass(slots=True)
class StageFigures:
    allocated: int = 0
    reserved: int = 0
    seconds: float = 0.0
    component: str | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What a scenario costs. Bytes on the card are without the context."""

    allocated: int
    reserved: int
    load_vram: int
    host: HostFigures
    seconds: float
    compute: float
    transfer: float
    first_extra: float
    """Seconds that only the first call takes on top."""
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
        self.timed = any(t.seconds for t in self.index.tables)
        self._transforms: dict[tuple[object, ...], list[Transform]] = {}
        self._schedules: dict[tuple[frozenset[str], tuple[tuple[str, Stage], ...]], Schedule] = {}

    @cached_property
    def resident_seconds(self) -> float:
        """One call with everything on the card, whether it fits or not."""
        return self.fold(scenario_of(())).seconds

    def figures(self, effects: Iterable[Effect]) -> Figures:
        """What those effects together cost."""
        return self.fold(scenario_of(effects))

    def fold(self, scenario: Scenario) -> Figures:
        holdings = {name: scenario.holding(name) for name in self.index.weights}
        changes = self._changes(scenario)
        moving = frozenset(n for n, h in holdings.items() if h.place.mode == "component")
        plan = self._schedule(moving, scenario.releases)
        stages: dict[Stage, StageFigures] = {}
        spread = _Spread(self, scenario, holdings)
        pools: dict[str, int] = {}
        held = 0
        for number, moment in enumerate(plan.moments):
            if number in plan.flushes:
                held = 0
            table = self.index.tables[moment.table]
            active = holdings[table.component] if table.component is not None else None
            fold = self.folder.fold(moment.table, active, changes[moment.table])
            whole, segments = spread.standing(moment, table.component)
            portions = active is not None and active.place.mode in ("block", "leaf", "sequential")
            own = spread.own(fold, active)
            allocated = whole + own + spread.activation(fold)
            shared = portions and active is not None and not active.place.stream
            share = self.held.of(moment.table, shared, scenario.expandable)
            transient = round(spread.activation(fold) * share)
            if portions and active is not None and table.component is not None:
                if active.place.stream:
                    pool = fold.weights * (RECORD_STREAM_POOLS if active.place.record_stream else 1.0)
                    pools[table.component] = max(pools.get(table.component, 0), round(pool))
                else:
                    transient += fold.weights
            else:
                segments += spread.own_segments(table.component, active)
            held = max(held, transient)
            stage = stages.setdefault(table.stage, StageFigures())
            if allocated > stage.allocated:
                stage.allocated, stage.component = allocated, table.component or stage.component
            stage.reserved = max(stage.reserved, segments + held + sum(pools.values()), allocated)
        return self._total(scenario, holdings, changes, plan, stages)

    def _total(
        self, scenario: Scenario, holdings: dict[str, Holding], changes: list[Transform], plan: Schedule,
        stages: dict[Stage, StageFigures],
    ) -> Figures:  # fmt: skip
        seconds = compute = transfer = 0.0
        for number, table in enumerate(self.index.tables):
            active = holdings[table.component] if table.component is not None else None
            fold = self.folder.fold(number, active, changes[number])
            seconds, compute, transfer = seconds + fold.seconds, compute + fold.compute, transfer + fold.transfer
            stages.setdefault(table.stage, StageFigures()).seconds += fold.seconds
        calls = changes[0].calls if changes else 1
        for name in plan.onloads:
            size = self.folder.total(name, holdings[name].format)
            moved = calls * self.folder.move_whole(holdings[name], size, plan.onloads[name], plan.offloads[name])
            seconds, transfer = seconds + moved, transfer + moved
            first = self.index.first_phase(name)
            stages[self.index.tables[self.index.phases[first].table].stage].seconds += moved
        return Figures(
            allocated=max((s.allocated for s in stages.values()), default=0),
            reserved=max((s.reserved for s in stages.values()), default=0),
            load_vram=self._load_vram(scenario, holdings),
            host=host_figures(self.folder, self.measurement, scenario),
            seconds=seconds,
            compute=compute,
            transfer=transfer,
            first_extra=sum(s.first_call_seconds for s in scenario.speed),
            stages=stages,
        )

    def _load_vram(self, scenario: Scenario, holdings: dict[str, Holding]) -> int:
        """Bytes on the card when loading and placing are done, before the first call.

        Quantisers convert on the card and leave the result there until offloading takes it away again, one full-size
        layer at a time on top. Components that are released before others are loaded are not told apart.
        """
        placed = quantised = largest = 0
        for name, holding in holdings.items():
            stored = self.folder.total(name, holding.format)
            converts = holding.format.linear_only and holding.at_load
            if holding.place.mode == "resident":
                placed += stored
            if converts:
                quantised += stored
                kinds = self.index.weights[name].kinds
                largest = max(largest, max((self.index.kinds[k].own_bytes for k in kinds), default=0))
        if scenario.gpus is not None and scenario.gpus.kind != "context":
            placed //= max(1, scenario.gpus.count)
        return max(placed, quantised + largest)

    def _changes(self, scenario: Scenario) -> list[Transform]:
        key = scenario.activation_key
        known = self._transforms.get(key)
        if known is None:
            known = self._transforms[key] = transforms(self.index, scenario)
        return known

    def _schedule(self, moving: frozenset[str], releases: dict[str, Stage]) -> Schedule:
        key = (moving, tuple(sorted(releases.items())))
        known = self._schedules.get(key)
        if known is None:
            known = self._schedules[key] = schedule(self.index, moving, releases)
        return known


class _Spread:
    """Whole components that stand on the card, over one card or several."""

    def __init__(self, evaluator: Evaluator, scenario: Scenario, holdings: dict[str, Holding]) -> None:
        folder = evaluator.folder
        self.holdings = holdings
        self.total = {n: folder.total(n, h.format) for n, h in holdings.items()}
        self.segment = {n: folder.total(n, h.format, "segment") for n, h in holdings.items()}
        self.resident = [n for n, h in holdings.items() if h.place.mode == "resident"]
        gpus = scenario.gpus
        self.kind = gpus.kind if gpus is not None and gpus.count > 1 else None
        self.count = gpus.count if gpus is not None else 1
        self.card: dict[str, int] = balanced(self.total, self.count) if self.kind == "components" else {}

    def standing(self, moment: Moment, active: str | None) -> tuple[int, int]:
        """Allocated and segment bytes of the components beside the active one."""
        allocated = segments = 0
        here = self.card.get(active) if active is not None else None
        for name in (*self.resident, *moment.present):
            if name == active or name in moment.gone or (here is not None and self.card[name] != here):
                continue
            allocated += self.total[name]
            segments += self.segment[name]
        if self.kind in ("layers", "tensor"):
            return allocated // self.count, segments // self.count
        return allocated, segments

    def own(self, fold: Fold, active: Holding | None) -> int:
        """Bytes of the active component's weights at the peak."""
        weights = fold.peak - fold.activation if active is not None else 0
        return weights // self.count if self.kind in ("layers", "tensor") else weights

    def own_segments(self, name: str | None, active: Holding | None) -> int:
        if name is None or active is None:
            return 0
        return self.segment[name] // self.count if self.kind in ("layers", "tensor") else self.segment[name]

    def activation(self, fold: Fold) -> int:
        return fold.activation // self.count if self.kind == "context" else fold.activation


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
