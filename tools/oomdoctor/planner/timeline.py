"""Memory over time under a strategy, row by row: what a picture of it shows, and a slow check of the fast fold."""

from __future__ import annotations

from dataclasses import dataclass

from oomdoctor.planner.activation import transforms
from oomdoctor.planner.evaluator import Evaluator, Figures
from oomdoctor.planner.formats import Sizes
from oomdoctor.planner.scenario import Holding, Scenario
from oomdoctor.values import Stage

_END = (-2, -2)
"""A row at which the outermost forward of a component ends."""


@dataclass(frozen=True, slots=True)
class Point:
    """One interval of the run."""

    seconds: float
    """When it ends, in predicted seconds of the call; waiting for transfers is spread evenly over its stage."""
    stage: Stage
    component: str | None
    weights: int
    activation: int
    """What the stage's work needs, unpacked copies of weights included."""

    @property
    def allocated(self) -> int:
        return self.weights + self.activation


def timeline(evaluator: Evaluator, scenario: Scenario) -> list[Point]:
    """The run in its order, one point per row of the trace."""
    return _Walker(evaluator, scenario).points()


class _Walker:
    def __init__(self, evaluator: Evaluator, scenario: Scenario) -> None:
        self.evaluator = evaluator
        self.index = evaluator.index
        self.trace = evaluator.trace
        self.holdings: dict[str, Holding] = {n: scenario.holding(n) for n in self.index.weights}
        self.sizes: dict[str, Sizes] = {n: evaluator.folder.sizes(h.format) for n, h in self.holdings.items()}
        self.totals = {n: evaluator.folder.total(n, h.format) for n, h in self.holdings.items()}
        self.releases = scenario.releases
        self.order = self.index.order
        self.last_of: dict[str, int] = {}
        """Component -> last row in which it runs."""
        self.over: dict[Stage, int] = {}
        """Stage -> its last row."""
        for row, node in enumerate(self.trace.module):
            self.last_of[self.trace.modules[node].component] = row
            self.over[self.trace.stage[row]] = row
        changes = transforms(self.index, scenario)
        self.change = {(t.stage, t.component): (changes[n], t.base) for n, t in enumerate(self.index.tables)}
        # What happens between the portions of a stage has no table of its own: it goes with the stage's component.
        self.between = {t.stage: (changes[n], t.base) for n, t in reversed(list(enumerate(self.index.tables)))}
        self.stretch = _stretch(evaluator, evaluator.fold(scenario))
        self.next_layer, self.next_block = self._ahead()

    def points(self) -> list[Point]:
        stack: list[int] = []
        present: set[str] = set()
        clock = 0.0
        out: list[Point] = []
        trace = self.trace
        for row, node in enumerate(trace.module):
            name = trace.modules[stack[-1]].component if stack else None
            stage = self._stage(stack, row)
            weights = sum(self._held(n, name, stack, present, row) for n in self.holdings)
            clock += trace.seconds[row] * trace.repeats[row] * self.stretch.get(stage, 0.0) if row else 0.0
            out.append(Point(clock, stage, name, weights, self._activation(name, stage, stack, row)))
            component = trace.modules[node].component
            if trace.entered[row]:
                if all(trace.modules[n].component != component for n in stack):
                    self._arrive(component, present)
                stack.append(node)
            elif node in stack:
                while stack.pop() != node:
                    pass
        return out

    def _stage(self, stack: list[int], row: int) -> Stage:
        return self.trace.stage[row] if stack else self.trace.stage[row - 1] if row else Stage.LOAD

    def _ahead(self) -> tuple[list[int], list[int]]:
        """Row -> kind of the layer, and number of the block, that the running forward enters next; -1: none."""
        count = len(self.trace.module)
        layers, blocks = [-1] * count, [-1] * count
        layer: dict[str, int] = {}
        block: dict[str, int] = {}
        steps: dict[int, tuple[int, int]] = {}
        stack: list[int] = []
        for row, node in enumerate(self.trace.module):
            name = self.trace.modules[node].component
            if self.trace.entered[row]:
                outer = next((n for n in reversed(stack) if self.trace.modules[n].component == name), None)
                before = -1 if outer is None else self.index.block_of[outer]
                mine = self.index.block_of[node]
                steps[row] = (self.index.kind_of[node], mine if mine != before else -1)
                stack.append(node)
            elif node in stack:
                while stack.pop() != node:
                    pass
                if all(self.trace.modules[n].component != name for n in stack):
                    steps[row] = _END
        for row in range(count - 1, -1, -1):
            name = self.trace.modules[self.trace.module[row]].component
            kind, begun = steps.get(row, (-1, -1))
            if (kind, begun) == _END:
                layer[name] = block[name] = -1
            layer[name] = kind if kind >= 0 else layer.get(name, -1)
            block[name] = begun if begun >= 0 else block.get(name, -1)
            layers[row], blocks[row] = layer[name], block[name]
        return layers, blocks

    def _activation(self, name: str | None, stage: Stage, stack: list[int], row: int) -> int:
        peak = max(self.trace.peak_bytes[row] if row else 0, self.trace.live_bytes[row])
        change, base = self.change.get((stage, name)) or self.between[stage]
        if name is None or not self.holdings[name].format.compute:
            return change.of(peak, base)
        sizes = self.sizes[name]
        if self._by_block(name):
            weights, block = self.index.weights[name], self._block(stack)
            inside = weights.blocks[block] if block >= 0 else weights.unmatched
            return change.of(peak, base) + max((sizes.used[k] for k in inside), default=0)
        kinds = self._kinds(name, stack)
        extra = change.of(peak, base) + sum(sizes.used[k] for k in kinds)
        if kinds:
            live = self.trace.live_bytes[row - 1] if row else 0
            extra = max(extra, change.of(live, base) + sizes.moving[kinds[-1]])
        return extra

    def _kinds(self, name: str, stack: list[int]) -> list[int]:
        mine = (self.index.kind_of[n] for n in stack if self.trace.modules[n].component == name)
        return [k for k in mine if k >= 0]

    def _block(self, stack: list[int]) -> int:
        return next((b for b in (self.index.block_of[n] for n in reversed(stack)) if b >= 0), -1)

    def _by_block(self, name: str) -> bool:
        return self.holdings[name].place.mode == "block" and bool(self.index.weights[name].blocks)

    def _arrive(self, component: str, present: set[str]) -> None:
        if self.holdings[component].place.mode != "component":
            return
        chain = [n for n in self.order if n in self.holdings and self.holdings[n].place.mode == "component"]
        if component in chain and chain.index(component) > 0:
            present.discard(chain[chain.index(component) - 1])
        present.add(component)

    def _held(
        self, name: str, active: str | None, stack: list[int], present: set[str], row: int
    ) -> int:  # fmt: skip
        place, sizes = self.holdings[name].place, self.sizes[name]
        last = self.last_of.get(name, 0)
        if name in self.releases and row > last and self._past(self.releases[name], row):
            return 0
        if place.mode == "resident":
            waits = place.after_stage is not None and active != name and not self._past(place.after_stage, row)
            return 0 if waits else self.totals[name]
        if place.mode == "component":
            return self.totals[name] if name in present else 0
        if active != name:
            return 0
        if self._by_block(name):
            per_group = 1 if place.stream else max(1, place.blocks)
            unmatched, groups, _ = self.evaluator.folder.block_groups(name, self.holdings[name].format, per_group)
            following = self.next_block[row] if place.stream else -1
            return unmatched + sum(groups[b] for b in (self._block(stack), following) if b >= 0)
        if place.mode == "block":
            return self.totals[name]
        following = self.next_layer[row] if place.stream else -1
        return sum(sizes.stored[k] for k in [*self._kinds(name, stack), *([following] if following >= 0 else [])])

    def _past(self, stage: Stage, row: int) -> bool:
        """What happens between the last module of a stage and the next one still belongs to the stage."""
        return row > self.over.get(stage, -1) + 1


def _stretch(evaluator: Evaluator, figures: Figures) -> dict[Stage, float]:
    """Stage -> factor from the trace's computing time to the predicted time of the strategy."""
    trace = evaluator.trace
    spent: dict[Stage, float] = {}
    open_modules = 0
    for row in range(1, len(trace.module)):
        open_modules += 1 if trace.entered[row - 1] else -1
        stage = trace.stage[row] if open_modules > 0 else trace.stage[row - 1]
        spent[stage] = spent.get(stage, 0.0) + trace.seconds[row] * trace.repeats[row]
    return {s: figures.stages[s].seconds / t for s, t in spent.items() if t > 0 and s in figures.stages}
