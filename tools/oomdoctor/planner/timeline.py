"""Memory over time under a strategy, row by row: what a picture of it shows, and a slow check of the fast fold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oomdoctor.errors import InputError
from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.formats import Sizes
from oomdoctor.planner.scenario import Holding, Scenario
from oomdoctor.units import GIB
from oomdoctor.values import Stage


@dataclass(frozen=True, slots=True)
class Point:
    """One interval of the run."""

    seconds: float
    """When it ends, transfers not included."""
    stage: Stage
    component: str | None
    weights: int
    activation: int

    @property
    def allocated(self) -> int:
        return self.weights + self.activation


def timeline(evaluator: Evaluator, scenario: Scenario) -> list[Point]:
    """The run in its order, one point per row of the trace.

    Placements without prefetching and formats as loaded, or ordinary dtypes: what moves ahead on a stream or is
    unpacked for a layer belongs to the fold, not to this picture.
    """
    return _Walker(evaluator, scenario).points()


class _Walker:
    def __init__(self, evaluator: Evaluator, scenario: Scenario) -> None:
        self.evaluator = evaluator
        self.index = evaluator.index
        self.trace = evaluator.trace
        self.holdings: dict[str, Holding] = {n: scenario.holding(n) for n in self.index.weights}
        self.sizes: dict[str, Sizes] = {n: evaluator.folder.sizes(h.format) for n, h in self.holdings.items()}
        self.last = {name: max(rows) for name, rows in self._rows().items()}
        self.releases = scenario.releases
        self.order = self.index.order

    def _rows(self) -> dict[str, list[int]]:
        out: dict[str, list[int]] = {n: [0] for n in self.index.weights}
        for row, node in enumerate(self.trace.module):
            out[self.trace.modules[node].component].append(row)
        return out

    def points(self) -> list[Point]:
        stack: list[int] = []
        present: set[str] = set()
        group: dict[str, tuple[int, int]] = {}
        clock = 0.0
        out: list[Point] = []
        trace = self.trace
        for row, node in enumerate(trace.module):
            name = trace.modules[stack[-1]].component if stack else None
            stage = trace.stage[row] if stack else trace.stage[row - 1] if row else Stage.LOAD
            weights = sum(self._held(n, name, stack, present, group, row) for n in self.holdings)
            clock += trace.seconds[row] * trace.repeats[row] * self.evaluator.scale if row else 0.0
            peak = max(trace.peak_bytes[row] if row else 0, trace.live_bytes[row])
            out.append(Point(clock, stage, name, weights, peak))
            component = trace.modules[node].component
            if trace.entered[row]:
                if all(trace.modules[n].component != component for n in stack):
                    self._arrive(component, present)
                stack.append(node)
                self._enter_group(component, node, group)
            elif node in stack:
                while stack.pop() != node:
                    pass
                if all(trace.modules[n].component != component for n in stack):
                    group.pop(component, None)
        return out

    def _arrive(self, component: str, present: set[str]) -> None:
        if self.holdings[component].place.mode != "component":
            return
        chain = [n for n in self.order if n in self.holdings and self.holdings[n].place.mode == "component"]
        if component in chain and chain.index(component) > 0:
            present.discard(chain[chain.index(component) - 1])
        present.add(component)

    def _enter_group(self, component: str, node: int, group: dict[str, tuple[int, int]]) -> None:
        block = self.index.block_of[node]
        if block >= 0:
            step = max(1, self.holdings[component].place.blocks)
            family = next(f for f in self.index.weights[component].families if block in f)
            start = family.start + (block - family.start) // step * step
            group[component] = (start, min(start + step, family.stop))

    def _held(
        self, name: str, active: str | None, stack: list[int], present: set[str],
        group: dict[str, tuple[int, int]], row: int,
    ) -> int:  # fmt: skip
        mode, weights, sizes = self.holdings[name].place.mode, self.index.weights[name], self.sizes[name]
        total = self.evaluator.folder.total(name, self.holdings[name].format)
        if name in self.releases and row > self.last[name] and self._past(self.releases[name], row):
            return 0
        if mode == "resident":
            return total
        if mode == "component":
            return total if name in present else 0
        if active != name:
            return 0
        if mode == "block" and weights.blocks:
            held = sum(sizes.stored[k] * n for k, n in weights.unmatched.items())
            block = next((b for b in (self.index.block_of[n] for n in reversed(stack)) if b >= 0), -1)
            if block >= 0:
                start, stop = group[name]
                held += sum(sizes.stored[k] * n for b in range(start, stop) for k, n in weights.blocks[b].items())
            return held
        if mode == "block":
            return total
        mine = [n for n in stack if self.trace.modules[n].component == name]
        return sum(sizes.stored[k] for k in (self.index.kind_of[n] for n in mine) if k >= 0)

    def _past(self, stage: Stage, row: int) -> bool:
        return stage not in self.trace.stage[row:]


def draw(points: list[Point], file: Path, title: str, capacity: int | None = None) -> None:
    """Writes the picture of memory over time as PNG.

    Raises :class:`InputError` where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("drawing needs matplotlib; install it with `pip install oom-doctor[plot]`") from None
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    seconds = [p.seconds for p in points]
    axes.stackplot(
        seconds,
        [p.weights / GIB for p in points],
        [p.activation / GIB for p in points],
        labels=["weights", "activations"],
        step="pre",
    )
    if capacity is not None:
        axes.axhline(capacity / GIB, color="black", linestyle="--", label="free memory")
    axes.set(title=title, xlabel="seconds of computing", ylabel="GiB on the card")
    axes.legend(loc="upper right")
    figure.savefig(file, format="png", dpi=120)
