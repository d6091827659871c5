"""The trace of a measurement, digested once so that any placement can be folded over it in a few hundred steps.

One pass over the rows sorts every interval into a table per (stage, active component). A table keeps, for each
distinct *situation* (which blocks and which layers are on the card, which comes next), the highest activation and
the time spent. What a placement costs is then a loop over situations, of which there are far fewer than rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from oomdoctor.errors import InputError
from oomdoctor.planner.tables import Phase, Table, add_to, spend
from oomdoctor.planner.weights import Kind, WeightIndex, Weights
from oomdoctor.values import Measurement, Stage, Trace


class TraceIndex:
    """The digest. Build it once per measurement; it holds no figures of a card."""

    def __init__(self, measurement: Measurement, trace: Trace, coarse: bool = False) -> None:
        """``coarse``: the trace was made from totals, see :mod:`oomdoctor.planner.outline`."""
        _check(trace)
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
        self._walk(trace)
        self.order = _offload_order(measurement, self.phases)

    def last_phase(self, component: str) -> int:
        """Index of the last phase in which the component runs, -1 when it never does."""
        return max((i for i, p in enumerate(self.phases) if p.component == component), default=-1)

    def first_phase(self, component: str) -> int:
        return min((i for i, p in enumerate(self.phases) if p.component == component), default=-1)

    def _table(self, stage: Stage, component: str | None, base: int) -> int:
        key = (stage, component)
        known = self._table_ids.get(key)
        if known is None:
            known = self._table_ids[key] = len(self.tables)
            self.tables.append(Table(stage, component, base))
        table = self.tables[known]
        table.base = min(table.base, base)
        return known

    def _walk(self, trace: Trace) -> None:
        components = [m.component for m in trace.modules]
        stack: list[_Frame] = []
        forwards: dict[str, _Forward] = {}
        live, frame, name = 0, _OUTSIDE, None
        table, at, number, phase = None, None, -1, Phase(-1, None, 0)
        reserved = trace.reserved_bytes or (0,) * len(trace.module)
        # A row that enters a component belongs to the stage that follows it.
        following = (*trace.stage[1:], *trace.stage[-1:])
        rows = zip(
            trace.module, trace.entered, trace.stage, following, trace.live_bytes, trace.peak_bytes, trace.seconds,
            trace.repeats, reserved, strict=True,
        )  # fmt: skip
        for node, entered, stage, next_stage, live_after, peak, seconds, repeats, held in rows:
            if table is None or at != (stage, name):
                at = (stage, name)
                number = self._table(stage, name, live)
                table = self.tables[number]
            if phase.table != number:
                phase = Phase(number, name, 0)
                self.phases.append(phase)
            peak = max(peak, live_after)
            table.peak = max(table.peak, peak)
            table.reserved = max(table.reserved, held)
            seconds *= repeats
            table.seconds += seconds
            if name is not None:
                forward = forwards[name]
                forward.intervals.append(
                    (table, frame, len(forward.leaves), len(forward.blocks), peak, live, seconds, repeats)
                )
            live = live_after
            if entered:
                component = components[node]
                opens = component != name and component not in forwards
                if opens:
                    forwards[component] = _Forward()
                    phase = self._enter_component(component, next_stage, live, repeats)
                entry = (
                    table if at == (next_stage, component) else self.tables[self._table(next_stage, component, live)]
                )
                parent = frame if name == component else _OUTSIDE
                frame = self._enter(node, opens, parent, forwards[component], entry, repeats, live)
                stack.append(frame)
                name = component
            elif stack and (stack[-1].node == node or any(f.node == node for f in stack)):
                while True:
                    left = stack.pop()
                    if left.opens:
                        forwards.pop(components[left.node]).close()
                    if left.node == node:
                        break
                frame = stack[-1] if stack else _OUTSIDE
                name = components[frame.node] if stack else None
        for forward in forwards.values():
            forward.close()

    def _enter_component(self, name: str, stage: Stage, live: int, repeats: int) -> Phase:
        number = self._table(stage, name, live)
        self.tables[number].forwards += repeats
        self.phases.append(Phase(number, name, repeats))
        return self.phases[-1]

    def _enter(
        self, node: int, opens: bool, parent: _Frame, forward: _Forward, table: Table, repeats: int, live: int
    ) -> _Frame:
        kind, block = self.kind_of[node], self.block_of[node]
        if kind >= 0:
            forward.leaves.append(kind)
            table.leaf_entries[kind] += repeats
        if block >= 0 and parent.block != block:
            forward.blocks.append(block)
            table.block_entries[block] += repeats
            table.block_output = max(table.block_output, live - table.base)
        return _Frame(node, (*parent.kinds, kind) if kind >= 0 else parent.kinds, block, opens)


class _Frame(NamedTuple):
    node: int
    kinds: tuple[int, ...]
    block: int
    opens: bool
    """The outermost module of its component on the stack."""


_OUTSIDE = _Frame(-1, (), -1, False)
_Interval = tuple[Table, _Frame, int, int, int, int, float, int]


class _Forward:
    """One outermost forward of a component. What comes next is only known once it has ended."""

    def __init__(self) -> None:
        self.leaves: list[int] = []
        self.blocks: list[int] = []
        self.intervals: list[_Interval] = []

    def close(self) -> None:
        leaves, blocks = [*self.leaves, -1], [*self.blocks, -1]
        leaf_before = block_before = -1
        for table, frame, leaf_at, block_at, peak, live, seconds, repeats in self.intervals:
            leaf, block = leaves[leaf_at], blocks[block_at]
            add_to(table.leaves, (frame.kinds, leaf), peak, live, seconds)
            add_to(table.blocks, (frame.block, block), peak, live, seconds)
            spend(table.leaf_steps, leaf, seconds, repeats if leaf_at != leaf_before else 0)
            spend(table.block_steps, block, seconds, repeats if block_at != block_before else 0)
            leaf_before, block_before = leaf_at, block_at


def _offload_order(measurement: Measurement, phases: list[Phase]) -> tuple[str, ...]:
    if measurement.offload_sequence:
        return measurement.offload_sequence
    seen = dict.fromkeys(p.component for p in phases if p.component is not None)
    return tuple(seen)


def _columns(trace: Trace) -> Iterator[tuple[str, int]]:
    for name in ("module", "entered", "stage", "live_bytes", "peak_bytes", "seconds", "repeats"):
        yield name, len(getattr(trace, name))
    if trace.reserved_bytes:
        yield "reserved_bytes", len(trace.reserved_bytes)


def _check(trace: Trace) -> None:
    lengths = dict(_columns(trace))
    if len(set(lengths.values())) != 1:
        raise InputError(f"the trace's columns differ in length ({lengths}); measure the script again")
    if trace.module and not 0 <= min(trace.module) <= max(trace.module) < len(trace.modules):
        raise InputError("the trace names a module that it does not list; measure the script again")
