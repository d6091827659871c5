"""One component, one table, one way of holding the weights: what that takes on the card and on the bus.

Everything the strategies are made of is folded here once and kept; a strategy is then a sum over components.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from oomdoctor.planner.activation import Transform
from oomdoctor.planner.formats import Sizes, WeightFormat, mixed_extra
from oomdoctor.planner.index import TraceIndex
from oomdoctor.planner.rates import (
    CAST_OVERHEAD_SECONDS,
    DISK_BYTES_PER_SECOND,
    GROUP_OVERHEAD_SECONDS,
    LAUNCH_SECONDS,
    PIN_BYTES_PER_SECOND,
    QUEUE_LAUNCHES,
    SEQUENTIAL_OVERHEAD_SECONDS,
    Rates,
)
from oomdoctor.planner.scenario import Holding
from oomdoctor.planner.tables import LeafKey, Table
from oomdoctor.planner.weights import Weights
from oomdoctor.techniques.effects import Place


@dataclass(frozen=True, slots=True)
class Fold:
    """Bytes on the card while the component is active, and seconds of one whole run of the table."""

    peak: int
    """Own weights, unpacked copies and activations."""
    weights: int
    """Highest amount of the component's own weights at one time."""
    activation: int
    """Activations, unpacked copies included."""
    seconds: float
    compute: float
    transfer: float
    """Time the bus is busy; part of it may hide behind compute."""
    unpack: float = 0.0
    """Part of ``compute`` that goes into converting stored weights for use."""
    outside: int = 0
    """Of ``weights``, what lies outside blocks and so comes and goes without the stream that the blocks use."""
    lingering: int = 0
    """With ``record_stream``: weights that were copied already and not computed with yet, at their highest."""


_SMALL = 1 << 16
"""Portions below this many bytes do not count where portions pile up."""
_PASSES_AT_MOST = 24
"""Through a VAE's layers, of which what piles up is followed; virtual runs of 49 tiles show no more."""
_Row = tuple[tuple[int, ...], int, int, int]
"""Kinds on the stack, the kind that comes next (-1: none, or it does not matter), peak, live."""


class Folder:
    """Folds and remembers, for one digest and one machine."""

    def __init__(self, index: TraceIndex, rates: Rates, compute_scale: float) -> None:
        self.index = index
        self.rates = rates
        self.scale = compute_scale
        self._sizes: dict[WeightFormat, Sizes] = {}
        self._folds: dict[tuple[int, str | None, Holding | None, Transform], Fold] = {}
        self._situations: dict[tuple[int, bool], list[_Row]] = {}
        self._totals: dict[tuple[str, WeightFormat, str], int] = {}
        self._groups: dict[tuple[str, WeightFormat, int], tuple[int, list[int], list[int]]] = {}

    def sizes(self, fmt: WeightFormat) -> Sizes:
        known = self._sizes.get(fmt)
        if known is None:
            known = self._sizes[fmt] = Sizes(self.index.kinds, fmt)
        return known

    def total(self, component: str, fmt: WeightFormat, figure: str = "stored") -> int:
        """All weights of a component: ``stored``, ``segment``, ``pinned``, ``converted`` or ``scales`` bytes."""
        key = (component, fmt, figure)
        known = self._totals.get(key)
        if known is None:
            weights = self.index.weights[component]
            rest = 0 if figure in ("converted", "scales") else _rest(weights, fmt)
            known = self._totals[key] = rest + _sum(weights.kinds, getattr(self.sizes(fmt), figure))
        return known

    def fold(self, number: int, holding: Holding | None, transform: Transform) -> Fold:
        """The table's own component held that way (None for tables in which none is active)."""
        table = self.index.tables[number]
        key = (number, table.component, holding, transform)
        known = self._folds.get(key)
        if known is None:
            known = self._folds[key] = self._compute(table, holding, transform)
        return known

    def _compute(self, table: Table, holding: Holding | None, transform: Transform) -> Fold:
        compute = table.seconds * self.scale * transform.time
        if holding is None or table.component is None:
            peak = transform.of(table.peak, table.base)
            return Fold(peak, 0, peak, compute, compute, 0.0)
        sizes = self.sizes(holding.format)
        unpack = _sum(table.leaf_entries, sizes.touched) * holding.format.effort / self.rates.memory * transform.times
        compute += unpack
        fold = self._placed(table, holding, transform, sizes, compute)
        lingering = (
            self._lingering(table, holding, sizes, compute, transform.passes) if holding.place.record_stream else 0
        )
        return replace(fold, unpack=unpack, lingering=lingering) if unpack or lingering else fold

    def _lingering(self, table: Table, holding: Holding, sizes: Sizes, compute: float, passes: int) -> int:
        """The host waits for one copy before it starts the next, but not for computing: where that is the slower of
        the two, portions pile up through the forward (or the ``passes`` through a VAE, none of which waits for another),
        as far as launches can be queued. The scheduler's look at its noise levels ends that at each step."""
        turns = list(self._portions(table, holding, sizes))
        stretch = compute / (table.seconds or 1.0) / passes
        rate = 1.0 / self._move(holding.place, 1 << 30, 1) * (1 << 30)
        host = copied = computed = pending = 0.0
        launched = 0
        waiting: deque[tuple[float, int]] = deque()
        queued: deque[tuple[int, float]] = deque()
        there = highest = 0
        for _ in range(min(passes, _PASSES_AT_MOST)):
            before = highest
            for size, seconds, launches in turns:
                launched += launches
                host += launches * LAUNCH_SECONDS + GROUP_OVERHEAD_SECONDS
                while queued and queued[0][0] <= launched - QUEUE_LAUNCHES:
                    done = queued.popleft()[1]
                    if done > host:
                        host = done
                if size < _SMALL:
                    pending += seconds
                    continue
                if copied > host:
                    host = copied
                while waiting and waiting[0][0] <= host:
                    there -= waiting.popleft()[1]
                there += size
                if there > highest:
                    highest = there
                copied = host + size / rate
                computed = (copied if copied > computed else computed) + (pending + seconds) * stretch
                pending = 0.0
                waiting.append((computed, size))
                queued.append((launched, computed))
            if highest == before:
                break
        # Layers that are most of what is there at a time do not find their place whole again: others lie in it.
        return max(highest, sum([size for size, _, _ in turns if 2 * size > highest]))

    def _portions(self, table: Table, holding: Holding, sizes: Sizes) -> Iterator[tuple[int, float, int]]:
        """What is fetched in the course of one forward: bytes, the seconds of computing with it, and launches."""
        assert table.component is not None
        more, touched = holding.format.launches, sizes.touched
        if holding.place.mode != "block":
            fetched = _fetched(holding, sizes)
            for kind, spent, launches in table.turns:
                yield fetched[kind], spent, launches + more if touched[kind] else launches
            return
        launched = sum([t.launches + (more if touched[t.kind] else 0) for t in table.turns])
        whole = sum([t.seconds for t in table.turns]) or 1.0
        blocks = self.block_groups(table.component, holding.format, 1)[1]
        seconds = dict.fromkeys(range(len(blocks)), 0.0)
        for (block, _), situation in table.blocks.items():
            if block >= 0:
                seconds[block] += situation.seconds
        for block, size in enumerate(blocks):
            spent = seconds[block] / max(1, table.forwards)
            yield size, spent, round(launched * min(1.0, spent / whole))

    def _placed(self, table: Table, holding: Holding, transform: Transform, sizes: Sizes, compute: float) -> Fold:
        assert table.component is not None
        mode = holding.place.mode
        if mode == "block" and self.index.weights[table.component].blocks:
            return self._block(table, holding, transform, sizes, compute)
        if mode in ("leaf", "sequential"):
            return self._leaf(table, holding, transform, sizes, compute)
        return self._whole(table, holding, transform, sizes, compute)

    def _whole(self, table: Table, holding: Holding, transform: Transform, sizes: Sizes, compute: float) -> Fold:
        assert table.component is not None
        total = self.total(table.component, holding.format)
        activation = transform.of(table.peak, table.base)
        if holding.format.compute:
            beside = self._beside(table, holding.format, transform)
            rows = self._rows(table, False)
            activation = max(activation, _unpacked_peak(rows, table.base, transform, sizes, beside))
        if holding.place.mode == "block":
            # No list of blocks: block offloading moves the whole component at every forward.
            moved = self._move(holding.place, total, table.forwards) * transform.times
            return Fold(total + activation, total, activation, compute + moved, compute, moved, outside=total)
        return Fold(total + activation, total, activation, compute, compute, 0.0)

    def _leaf(self, table: Table, holding: Holding, transform: Transform, sizes: Sizes, compute: float) -> Fold:
        place, stored, used, moving = holding.place, _fetched(holding, sizes), sizes.used, sizes.moving
        ahead = place.stream
        base = table.base
        peak = most = activation = 0
        plain, added, unpacks = transform.plain, transform.added, bool(holding.format.compute)
        beside = self._beside(table, holding.format, transform)
        for kinds, following, highest, live in self._rows(table, ahead):
            weights = stored[kinds[0]] if len(kinds) == 1 else sum([stored[k] for k in kinds])
            if following >= 0:
                weights += stored[following]
            extra = highest + added if plain else transform.of(highest, base)
            if unpacks and kinds:
                extra += sum([used[k] for k in kinds])
                extra = max(extra, transform.of(live, base) + moving[kinds[-1]] + beside.get(kinds[-1], 0))
            if weights + extra > peak:
                peak = weights + extra
            if weights > most:
                most = weights
            if extra > activation:
                activation = extra
        overhead = SEQUENTIAL_OVERHEAD_SECONDS if place.mode == "sequential" else GROUP_OVERHEAD_SECONDS
        if holding.format.casts:
            overhead += CAST_OVERHEAD_SECONDS
        entries = table.leaf_entries
        moved = sum(count * self._move(place, stored[k], 1) for k, count in entries.items()) * transform.times
        launches = overhead * sum(entries.values()) * transform.times
        if not ahead:
            return Fold(peak, most, activation, compute + moved + launches, compute, moved)
        if place.record_stream:
            # Copying is held up by nothing but itself.
            return Fold(peak, most, activation, max(compute, moved) + launches, compute, moved)
        stretch = compute / (table.seconds or 1.0)
        seconds = launches
        for kind, step in table.leaf_steps.items():
            fetch = self._move(place, stored[kind], step.count) * transform.times if kind >= 0 else 0.0
            seconds += max(step.seconds * stretch, fetch)
        return Fold(peak, most, activation, max(seconds, compute), compute, moved)

    def _beside(self, table: Table, fmt: WeightFormat, transform: Transform) -> dict[int, int]:
        """Kind -> what its 8-bit product takes beside the input, for formats that make one."""
        if not fmt.mixed:
            return {}
        share = transform.share * transform.own
        kinds = self.index.kinds
        return {k: round(share * mixed_extra(kinds[k], fmt, made)) for k, made in table.made.items()}

    def _rows(self, table: Table, ahead: bool) -> list[_Row]:
        """The situations of a table, those that differ only in what comes next as one where nothing is fetched ahead."""
        key = (id(table), ahead)
        known = self._situations.get(key)
        if known is None:
            rows: dict[LeafKey, _Row] = {}
            for (kinds, following), s in table.leaves.items():
                place = (kinds, following if ahead else -1)
                before = rows.get(place)
                peak, live = (s.peak, s.live) if before is None else (max(s.peak, before[2]), max(s.live, before[3]))
                rows[place] = (*place, peak, live)
            known = self._situations[key] = list(rows.values())
        return known

    def _block(self, table: Table, holding: Holding, transform: Transform, sizes: Sizes, compute: float) -> Fold:
        assert table.component is not None
        place, base = holding.place, table.base
        per_group = 1 if place.stream else max(1, place.blocks)
        unmatched, group, extra_used = self.block_groups(table.component, holding.format, per_group)
        parts, beside = self.index.weights[table.component], self._beside(table, holding.format, transform)
        outside = max((sizes.used[k] for k in parts.unmatched), default=0)
        peak = most = activation = 0
        for (block, following), situation in table.blocks.items():
            weights = unmatched + (group[block] if block >= 0 else 0)
            if place.stream and following >= 0:
                weights += group[following]
            extra = transform.of(situation.peak, base)
            extra += extra_used[block] if block >= 0 else outside
            if beside:
                inside = parts.blocks[block] if block >= 0 else parts.unmatched
                most_beside = max((beside.get(k, 0) for k in inside), default=0)
                extra = max(extra, transform.of(situation.live, base) + most_beside)
            peak, most, activation = max(peak, weights + extra), max(most, weights), max(activation, extra)
        single = self.block_groups(table.component, holding.format, 1)[1]
        calls = transform.times
        unstreamed = Place(place.component, "block", host="pageable", writes_back=place.writes_back)
        fixed = self._move(unstreamed, unmatched, table.forwards) * calls
        moved = sum(count * self._move(place, single[b], 1) for b, count in table.block_entries.items()) * calls
        launches = GROUP_OVERHEAD_SECONDS * sum(table.block_entries.values()) * calls
        if not place.stream:
            seconds = compute + moved + fixed + launches
            return Fold(peak, most, activation, seconds, compute, moved + fixed, outside=unmatched)
        stretch = compute / (table.seconds or 1.0)
        seconds = fixed + launches
        for block, step in table.block_steps.items():
            fetch = self._move(place, single[block], step.count) * calls if block >= 0 else 0.0
            seconds += max(step.seconds * stretch, fetch)
        return Fold(peak, most, activation, max(seconds, compute), compute, moved + fixed, outside=unmatched)

    def block_groups(self, component: str, fmt: WeightFormat, per_group: int) -> tuple[int, list[int], list[int]]:
        """Unmatched bytes; for each block the bytes of the group it is in; for each block its largest unpacked copy."""
        key = (component, fmt, per_group)
        known = self._groups.get(key)
        if known is None:
            weights, sizes = self.index.weights[component], self.sizes(fmt)
            single = [_sum(kinds, sizes.stored) for kinds in weights.blocks]
            grouped = list(single)
            for family in weights.families:
                for start in range(family.start, family.stop, per_group):
                    members = range(start, min(start + per_group, family.stop))
                    total = sum(single[m] for m in members)
                    for m in members:
                        grouped[m] = total
            used = [max((sizes.used[k] for k in kinds), default=0) for kinds in weights.blocks]
            unmatched = _sum(weights.unmatched, sizes.stored) + _rest(weights, fmt)
            known = self._groups[key] = (unmatched, grouped, used)
        return known

    def _move(self, place: Place, size: int, times: int) -> float:
        """Seconds on the bus for bringing ``size`` bytes ``times`` times, the way back included where there is one."""
        rates = self.rates
        if place.host == "disk":
            return times * size * (1 / DISK_BYTES_PER_SECOND + 1 / (rates.pinned if place.stream else rates.pageable))
        if place.host == "pinned":
            there = size / rates.pinned
        elif place.host == "pinned_on_demand":
            there = size / rates.pinned + size / PIN_BYTES_PER_SECOND
        else:
            there = size / rates.pageable
        back = size / rates.copy_back if place.writes_back else 0.0
        return times * (there + back)

    def move_whole(self, holding: Holding, size: int, onloads: int, offloads: int) -> float:
        """Seconds for bringing a whole component and sending it back."""
        there = size / (self.rates.pinned if holding.place.host == "pinned" else self.rates.pageable)
        back = size / self.rates.copy_back if holding.place.writes_back else 0.0
        return onloads * there + offloads * back

    def largest_group(self, component: str, holding: Holding) -> int:
        """The most bytes of the component that are fetched as one group."""
        weights = self.index.weights[component]
        if holding.place.mode == "block" and weights.blocks:
            unmatched, groups, _ = self.block_groups(component, holding.format, max(1, holding.place.blocks))
            return max([unmatched, *groups])
        if holding.place.mode in ("leaf", "sequential"):
            return self.largest_layer(component, holding)
        return self.total(component, holding.format)

    def scratch(self, component: str, fmt: WeightFormat) -> int:
        """What converting a weight for use needs at most besides, and that fits no hole which the activations leave. What
        little text encoders have of those leaves room."""
        if not fmt.scratch or self.index.weights[component].foreign:
            return 0
        moving = self.sizes(fmt).moving
        return max((moving[k] for k in self.index.weights[component].kinds), default=0)

    def largest_layer(self, component: str, holding: Holding) -> int:
        """The most bytes that one module of the component holds by itself."""
        stored = self.sizes(holding.format).stored
        return max((stored[k] for k in self.index.weights[component].kinds), default=0)


def _fetched(holding: Holding, sizes: Sizes) -> list[int]:
    """By kind, what comes to the card with each use."""
    stays = holding.place.stream and holding.at_load and holding.on_card
    return sizes.fetched if stays else sizes.stored


def _unpacked_peak(rows: list[_Row], base: int, transform: Transform, sizes: Sizes, beside: dict[int, int]) -> int:
    highest = 0
    used, moving = sizes.used, sizes.moving
    for kinds, _, peak, live in rows:
        extra = transform.of(peak, base) + sum([used[k] for k in kinds])
        if kinds:
            extra = max(extra, transform.of(live, base) + moving[kinds[-1]] + beside.get(kinds[-1], 0))
        highest = max(highest, extra)
    return highest


def _sum(counts: Mapping[int, int] | Counter[int], figures: list[int]) -> int:
    return sum([figures[k] * n for k, n in counts.items()])


def _rest(weights: Weights, fmt: WeightFormat) -> int:
    """Bytes that the trace does not place; ordinary dtypes change them like the rest of the component."""
    element, component = fmt.activation_element, weights.component
    if not weights.remainder_bytes or element is None or not component.params:
        return weights.remainder_bytes
    return round(weights.remainder_bytes * min(1.0, element * component.params / component.loaded_bytes))
