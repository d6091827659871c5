"""The trace of a measurement, digested once so that any placement can be folded over it in a few hundred steps.

One pass over the rows sorts every interval into a table per (stage, active component). A table keeps, for each
distinct *situation* (which blocks and which layers are on the card, which comes next), the highest activation and
the time spent. What a placement costs is then a loop over situations, of which there are far fewer than rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from oomdoctor.errors import InputError
from oomdoctor.values import Component, Measurement, ModuleNode, Stage, Trace

_CASTABLE = ("Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")


@dataclass(frozen=True, slots=True)
class Kind:
    """The weights of one module as far as storage formats care; equal modules share one kind."""

    own_bytes: int
    params: int
    linear: bool
    in_features: int
    castable: bool
    """Layerwise casting converts it: a Linear, Conv or Embedding that no skip pattern matches."""

    @property
    def matrix_params(self) -> int:
        """Elements of the weight matrix of a linear layer, the bias excluded."""
        if not self.linear or self.in_features <= 0 or self.params % (self.in_features + 1):
            return self.params
        # A bias adds one element per output row, so the count divides by in_features + 1 only when there is one
        # (or when the rows happen to be a multiple of it, which real layers avoid).
        return self.params // (self.in_features + 1) * self.in_features

    @property
    def itemsize(self) -> float:
        return self.own_bytes / self.params if self.params else 1.0


@dataclass(slots=True)
class Situation:
    """All intervals of a table in which the same modules are on the stack."""

    peak: int = 0
    live: int = 0
    """Activation at the start of the interval: what is there while weights are moved or cast."""
    seconds: float = 0.0


@dataclass(slots=True)
class Step:
    """Time that passes while one group computes and the next may be fetched."""

    seconds: float = 0.0
    count: int = 0


LeafKey = tuple[tuple[int, ...], int]
"""Kinds of the modules on the stack that hold weights, and the kind of the next one to be entered (-1: none)."""
BlockKey = tuple[int, int]
"""Number of the running block (-1: outside blocks) and of the next block (-1: none)."""


@dataclass(slots=True)
class Table:
    """Everything that happened in one stage while one component (or none) was active."""

    stage: Stage
    component: str | None
    base: int
    """Activation alive when the table was first entered: inputs that other stages made."""
    peak: int = 0
    seconds: float = 0.0
    leaves: dict[LeafKey, Situation] = field(default_factory=dict)
    blocks: dict[BlockKey, Situation] = field(default_factory=dict)
    leaf_steps: dict[int, Step] = field(default_factory=dict)
    """Kind that is fetched meanwhile -> time."""
    block_steps: dict[int, Step] = field(default_factory=dict)
    leaf_entries: Counter[int] = field(default_factory=Counter)
    """Kind -> how often a module of it was entered in the whole run."""
    block_entries: Counter[int] = field(default_factory=Counter)
    forwards: int = 0
    block_output: int = 0
    """Activation alive when a block begins, beyond ``base``: what one block hands to the next."""
    reserved: int = 0
    """Highest reserved memory seen, weights included; 0 when the trace does not say."""


@dataclass(slots=True)
class Phase:
    """A stretch of the run with one active component, in the order of time."""

    table: int
    component: str | None
    loads: int
    """How many times the run enters the component here (0: it was active already)."""


@dataclass(slots=True)
class Weights:
    """The weights of one component, by kind."""

    component: Component
    kinds: Counter[int] = field(default_factory=Counter)
    blocks: list[Counter[int]] = field(default_factory=list)
    """Block number -> its kinds. Blocks are numbered through all families in order."""
    families: list[range] = field(default_factory=list)
    unmatched: Counter[int] = field(default_factory=Counter)
    remainder_bytes: int = 0
    """Bytes of the component that the trace's nodes do not account for; they follow the whole component."""


class TraceIndex:
    """The digest. Build it once per measurement; it holds no figures of a card."""

    def __init__(self, measurement: Measurement, trace: Trace, coarse: bool = False) -> None:
        """``coarse``: the trace was made from totals, see :mod:`oomdoctor.planner.outline`."""
        _check(trace)
        self.measurement = measurement
        self.trace = trace
        self.coarse = coarse
        self.kinds: list[Kind] = []
        self._kind_ids: dict[Kind, int] = {}
        self.weights: dict[str, Weights] = {c.name: Weights(c) for c in measurement.components}
        self._kind_of: list[int] = []
        self._block_of: list[int] = []
        self._index_modules(trace.modules)
        self.tables: list[Table] = []
        self._table_ids: dict[tuple[Stage, str | None], int] = {}
        self.phases: list[Phase] = []
        self.rows = len(trace.module)
        self._walk(trace)
        self.order = _offload_order(measurement, self.phases)

    def kind_id(self, kind: Kind) -> int:
        known = self._kind_ids.get(kind)
        if known is None:
            known = self._kind_ids[kind] = len(self.kinds)
            self.kinds.append(kind)
        return known

    def last_phase(self, component: str) -> int:
        """Index of the last phase in which the component runs, -1 when it never does."""
        return max((i for i, p in enumerate(self.phases) if p.component == component), default=-1)

    def first_phase(self, component: str) -> int:
        return min((i for i, p in enumerate(self.phases) if p.component == component), default=-1)

    def _index_modules(self, modules: tuple[ModuleNode, ...]) -> None:
        families = {
            (name, block.path): number
            for name, weights in self.weights.items()
            for number, block in enumerate(weights.component.blocks)
        }
        roots: dict[str, dict[tuple[int, int], list[int]]] = {}
        for i, node in enumerate(modules):
            if node.component not in self.weights:
                self.weights[node.component] = Weights(_unlisted(node))
            self._kind_of.append(self.kind_id(_kind(node)) if node.own_bytes else -1)
            head, _, tail = node.path.rpartition(".")
            family = families.get((node.component, head))
            if family is not None and tail.isdigit():
                roots.setdefault(node.component, {}).setdefault((family, int(tail)), []).append(i)
        block_of_root: dict[int, int] = {}
        for name, by_place in roots.items():
            weights = self.weights[name]
            family_sizes: Counter[int] = Counter()
            for number, place in enumerate(sorted(by_place)):
                weights.blocks.append(Counter())
                family_sizes[place[0]] += 1
                for root in by_place[place]:
                    block_of_root[root] = number
            start = 0
            for family in sorted(family_sizes):
                weights.families.append(range(start, start + family_sizes[family]))
                start += family_sizes[family]
        for i, node in enumerate(modules):
            inherited = self._block_of[node.parent] if 0 <= node.parent < i else -1
            self._block_of.append(block_of_root.get(i, inherited) if inherited < 0 else inherited)
        for i, node in enumerate(modules):
            if self._kind_of[i] < 0:
                continue
            weights = self.weights[node.component]
            weights.kinds[self._kind_of[i]] += 1
            target = weights.blocks[self._block_of[i]] if self._block_of[i] >= 0 else weights.unmatched
            target[self._kind_of[i]] += 1
        for weights in self.weights.values():
            known = sum(self.kinds[k].own_bytes * n for k, n in weights.kinds.items())
            weights.remainder_bytes = max(0, weights.component.loaded_bytes - known)

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
        kind, block = self._kind_of[node], self._block_of[node]
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
            _add(table.leaves, (frame.kinds, leaf), peak, live, seconds)
            _add(table.blocks, (frame.block, block), peak, live, seconds)
            _spend(table.leaf_steps, leaf, seconds, repeats if leaf_at != leaf_before else 0)
            _spend(table.block_steps, block, seconds, repeats if block_at != block_before else 0)
            leaf_before, block_before = leaf_at, block_at


_Key = TypeVar("_Key", LeafKey, BlockKey)


def _add(situations: dict[_Key, Situation], key: _Key, peak: int, live: int, seconds: float) -> None:
    situation = situations.get(key)
    if situation is None:
        situations[key] = Situation(peak, live, seconds)
        return
    situation.peak = max(situation.peak, peak)
    situation.live = max(situation.live, live)
    situation.seconds += seconds


def _spend(steps: dict[int, Step], key: int, seconds: float, count: int) -> None:
    step = steps.get(key)
    if step is None:
        steps[key] = Step(seconds, count)
        return
    step.seconds += seconds
    step.count += count


def _kind(node: ModuleNode) -> Kind:
    layer = node.linear or node.class_name in _CASTABLE or node.class_name.endswith("Embedding")
    return Kind(node.own_bytes, node.own_params, node.linear, node.in_features, layer and node.cast_ok)


def _unlisted(node: ModuleNode) -> Component:
    """A component that the trace enters but the measurement does not list (an adapter's helper model)."""
    return Component(name=node.component, class_name=node.class_name, params=0, loaded_bytes=0, source="trace")


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
