"""The trace of a measurement, digested once so that any placement can be folded over it in a few hundred steps.

One pass over the rows sorts every interval into a table per (stage, active component). A table keeps, for each
distinct *situation* (which blocks and which layers are on the card, which comes next), the highest activation and
the time spent. What a placement costs is then a loop over situations, of which there are far fewer than rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from oomdoctor.planner.rows import Columns, columns, reused_caches
from oomdoctor.planner.tables import LAUNCHES, Phase, Table, Turn, add_to, spend
from oomdoctor.planner.weights import Kind, WeightIndex, Weights
from oomdoctor.values import Measurement, Stage, Trace


class TraceIndex:
    """The digest. Build it once per measurement; it holds no figures of a card."""

    def __init__(self, measurement: Measurement, trace: Trace, coarse: bool = False) -> None:
        """``coarse``: the trace was made from totals, see :mod:`oomdoctor.planner.outline`."""
        self.measurement = measurement
        self.trace = trace
        self.coarse = coarse
        sorted_weights = WeightIndex(measurement.components, trace.modules)
        self.kinds: list[Kind] = sorted_weights.kinds
        self.weights: dict[str, Weights] = sorted_weights.weights
        self.kind_of, self.block_of = sorted_weights.kind_of, sorted_weights.block_of
        self.tables: list[Table] = []
        self._table_ids: dict[tuple[Stage, str | None], int] = {}
        self.phases: list[Phase] = []
        self.rows = len(trace.module)
        self.reused = reused_caches(trace)
        self._walk(columns(trace))
        self.order = _offload_order(measurement, self.phases)

    def last_phase(self, component: str) -> int:
        """Index of the last phase in which the component runs, -1 when it never does."""
        return max((i for i, p in enumerate(self.phases) if p.component == component), default=-1)

    def first_phase(self, component: str) -> int:
        return min((i for i, p in enumerate(self.phases) if p.component == component), default=-1)

    def _walk(self, rows: Columns) -> None:
        walker = _Walker(self)
        walk = zip(
            rows.module, rows.entered, rows.stage, rows.live, rows.peak, rows.seconds, rows.repeats, rows.reserved,
            rows.arena, rows.launches, rows.first, strict=True,
        )  # fmt: skip
        interval, enter, leave, nodes = walker.interval, walker.enter, walker.leave, walker.nodes
        for node, entered, stage, live, peak, seconds, repeats, held, arena, launches, first in walk:
            interval(stage if nodes else walker.stage, peak, seconds, repeats, held, arena, launches)
            walker.live, walker.stage = live, stage
            if entered:
                enter(node, stage, repeats, first)
            else:
                leave(node)
        walker.close()

    def table(self, stage: Stage, component: str | None, base: int) -> int:
        """Number of the table, made when it is new; its base is the lowest at which it was entered."""
        key = (stage, component)
        known = self._table_ids.get(key)
        if known is None:
            known = self._table_ids[key] = len(self.tables)
            self.tables.append(Table(stage, component, base))
        self.tables[known].base = min(self.tables[known].base, base)
        return known


class _Frame(NamedTuple):
    """What is on the stack, as far as placements care. A module without weights has the frame of its parent."""

    component: str
    kinds: tuple[int, ...]
    block: int


class _Walker:
    """The state while the rows go by."""

    def __init__(self, index: TraceIndex) -> None:
        self.index = index
        self.kind_of, self.block_of = index.kind_of, index.block_of
        self.components = [m.component for m in index.trace.modules]
        self.nodes: list[int] = []
        self.began: list[int] = []
        """What was alive when each of ``nodes`` was entered."""
        self.frames: list[_Frame] = []
        self.forwards: dict[str, _Forward] = {}
        self.live = 0
        self.stage = Stage.LOAD
        self.name: str | None = None
        self.at: tuple[Stage, str | None] | None = None
        self.table = Table(Stage.LOAD, None, 0)
        self.phase = Phase(-1, None, 0)
        self.same: _Interval | None = None
        """What the next interval adds to as long as no other weights come on the stack or leave it."""

    def interval(
        self, stage: Stage, peak: int, seconds: float, repeats: int, held: int, arena: int, launches: int
    ) -> None:
        name, table = self.name, self.table
        if self.at != (stage, name):
            self.at = (stage, name)
            number = self.index.table(stage, name, self.live)
            table = self.table = self.index.tables[number]
            if self.phase.table != number:
                self.phase = Phase(number, name, 0)
                self.index.phases.append(self.phase)
        # Comparisons and not max(): this runs once per row.
        if peak > table.peak:
            table.peak = peak
        if held > table.reserved:
            table.reserved = held
        if arena > table.arena:
            table.arena = arena
        table.seconds += seconds
        if name is None:
            return
        same = self.same
        if same is None or same.table is not table:
            self.same = self.forwards[name].begin(table, self.frames[-1], peak, self.live, seconds, repeats, launches)
            return
        if peak > same.peak:
            same.peak = peak
        if self.live > same.live:
            same.live = self.live
        same.seconds += seconds
        same.launches += launches

    def enter(self, node: int, stage: Stage, repeats: int, first: int) -> None:
        component = self.components[node]
        if component == self.name:
            parent = self.frames[-1]
        else:
            parent = _Frame(component, (), -1)
            if component not in self.forwards:
                self.forwards[component] = _Forward(len(self.nodes))
                number = self.index.table(stage, component, self.live)
                self.index.tables[number].forwards += repeats
                self.phase = Phase(number, component, 1, first)
                self.index.phases.append(self.phase)
            self.name, self.at, self.same = component, None, None
        kind, block = self.kind_of[node], self.block_of[node]
        if kind >= 0 or block != parent.block:
            parent, self.same = self._weighty(parent, stage, kind, block, repeats), None
        self.nodes.append(node)
        self.began.append(self.live)
        self.frames.append(parent)

    def _weighty(self, parent: _Frame, stage: Stage, kind: int, block: int, repeats: int) -> _Frame:
        forward = self.forwards[parent.component]
        table = self.table
        if table.stage is not stage or table.component != parent.component:
            table = self.index.tables[self.index.table(stage, parent.component, self.live)]
        elif self.live < table.base:
            table.base = self.live
        kinds = parent.kinds
        if kind >= 0:
            kinds = (*kinds, kind)
            forward.leaves.append(kind)
            table.leaf_entries[kind] += repeats
        if block >= 0 and parent.block != block:
            forward.blocks.append(block)
            table.block_entries[block] += repeats
            table.block_output = max(table.block_output, self.live - table.base)
        return _Frame(parent.component, kinds, block)

    def leave(self, node: int) -> None:
        if not self.nodes or (self.nodes[-1] != node and node not in self.nodes):
            return
        left, top = -1, self.frames[-1]
        while left != node:
            left = self.nodes.pop()
            made = self.live - self.began.pop()
            component = self.frames.pop().component
            kind = self.kind_of[left]
            if kind >= 0 and made > self.table.made.get(kind, 0):
                self.table.made[kind] = made
            forward = self.forwards.get(component)
            if forward is not None and forward.depth == len(self.nodes):
                self.forwards.pop(component).close()
        if self.frames and self.frames[-1] is top:
            return
        self.same = None
        name = self.frames[-1].component if self.frames else None
        if name != self.name:
            self.name, self.at = name, None

    def close(self) -> None:
        for forward in self.forwards.values():
            forward.close()
        entered = [p for p in self.index.phases if p.loads]
        for before, after in pairwise(entered):
            # Two components that stand for equally many steps take turns in each of them.
            if before.component != after.component and before.repeats == after.repeats:
                before.loads = after.loads = after.repeats


class _Forward:
    """One outermost forward of a component. What comes next is only known once it has ended."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.leaves: list[int] = []
        self.blocks: list[int] = []
        self.intervals: list[_Interval] = []

    def begin(
        self, table: Table, frame: _Frame, peak: int, live: int, seconds: float, repeats: int,
        launches: int,
    ) -> _Interval:  # fmt: skip
        out = _Interval(table, frame, len(self.leaves), len(self.blocks), peak, live, seconds, repeats, launches)
        self.intervals.append(out)
        return out

    def close(self) -> None:
        leaves, blocks = [*self.leaves, -1], [*self.blocks, -1]
        self._keep_turns()
        leaf_before = block_before = -1
        for i in self.intervals:
            leaf, block = leaves[i.leaf_at], blocks[i.block_at]
            add_to(i.table.leaves, (i.frame.kinds, leaf), i.peak, i.live, i.seconds)
            add_to(i.table.blocks, (i.frame.block, block), i.peak, i.live, i.seconds)
            spend(i.table.leaf_steps, leaf, i.seconds, i.repeats if i.leaf_at != leaf_before else 0)
            spend(i.table.block_steps, block, i.seconds, i.repeats if i.block_at != block_before else 0)
            leaf_before, block_before = i.leaf_at, i.block_at

    def _keep_turns(self) -> None:
        """Of the forwards of a table, the one that enters most modules stands for all."""
        table = self.intervals[-1].table if self.intervals else None
        if table is None or len(self.leaves) <= len(table.turns):
            return
        spent = [0.0] * (len(self.leaves) + 1)
        launched = [0] * len(spent)
        for i in self.intervals:
            spent[i.leaf_at] += i.seconds / i.repeats
            launched[i.leaf_at] += i.launches
        if not any(launched):
            launched = [LAUNCHES] * len(spent)
        table.turns = list(map(Turn, self.leaves, spent[1:], launched[1:]))


@dataclass(slots=True)
class _Interval:
    table: Table
    frame: _Frame
    leaf_at: int
    block_at: int
    peak: int
    live: int
    seconds: float
    repeats: int
    launches: int


def _offload_order(measurement: Measurement, phases: list[Phase]) -> tuple[str, ...]:
    if measurement.offload_sequence:
        return measurement.offload_sequence
    seen = dict.fromkeys(p.component for p in phases if p.component is not None)
    return tuple(seen)
