"""The figures of the published memory calculators, derived from the trace instead of guessed, with corrections.

They are for explanation: no strategy is judged by them. Where a popular formula is wrong, ``correction`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.formats import NATIVE, WeightFormat, weight_format
from oomdoctor.planner.scenario import Holding
from oomdoctor.techniques.effects import Place, Store
from oomdoctor.values import Formula, Stage

_FORMATS: dict[str, WeightFormat] = {
    "native": NATIVE,
    "fp8": weight_format(Store("*", "fp8", respects_skip_patterns=True, compute_dtype="bf16", at_load=False)),
    "int8": weight_format(Store("*", "int8", linear_only=True)),
    "nf4": weight_format(Store("*", "nf4", linear_only=True, compute_dtype="bf16")),
}


def formulas(evaluator: Evaluator) -> tuple[Formula, ...]:
    """All symbols, for the formats as loaded, cast to fp8, int8 and nf4."""
    out: list[Formula] = []
    for name, fmt in _FORMATS.items():
        out += _weights(evaluator, name, fmt)
    out += _activations(evaluator)
    out += _predictions(evaluator, out)
    return tuple(out)


def _weights(evaluator: Evaluator, name: str, fmt: WeightFormat) -> list[Formula]:
    folder, parts = evaluator.folder, evaluator.index.weights
    totals = {n: folder.total(n, fmt) for n in parts}
    largest = max(totals, key=lambda n: totals[n])
    out = [
        Formula(
            symbol="S_total", format=name, bytes=sum(totals.values()), meaning="all components together",
            correction=_STORED.get(name),
        ),
        Formula(
            symbol="S_max", format=name, bytes=totals[largest], of=largest, meaning="the largest component",
            correction="model offloading holds more than one component where the chain is entered twice "
            "(two prompts, one encoder after the other), and whatever is outside the chain",
        ),
    ]  # fmt: skip
    for component, weights in parts.items():
        if weights.blocks:
            unmatched, groups, _ = folder.block_groups(component, fmt, 1)
            out += [
                Formula(
                    symbol="S_block", format=name, bytes=max(groups), of=component, meaning="the largest block",
                    correction="taken over all lists of blocks, not the first block of the first list",
                ),
                Formula(
                    symbol="S_unmatched", format=name, bytes=unmatched, of=component,
                    meaning="what block-level offloading keeps on the card all through the forward",
                    correction="left out of the published n x S_block + A",
                ),
            ]  # fmt: skip
        leaf = folder.largest_group(component, Holding(Place(component, "leaf"), fmt))
        out.append(
            Formula(
                symbol="S_leaf", format=name, bytes=leaf, of=component, meaning="the largest single layer",
                correction="an embedding can be far larger than the usual guess of S_block / 8",
            )
        )  # fmt: skip
    return out


_STORED = {
    "fp8": "not half of it: norms, what the model's skip patterns name, and other modules keep their dtype",
    "int8": "not half of it: only linear layers are converted, and each row carries a scale",
    "nf4": "not a quarter of it: only linear layers are converted, with 4.5 bits per weight",
}


def _activations(evaluator: Evaluator) -> list[Formula]:
    peaks: dict[Stage, int] = {}
    for table in evaluator.index.tables:
        peaks[table.stage] = max(peaks.get(table.stage, 0), table.peak)
    measured = "given as one figure" if evaluator.coarse else "measured in the traced run"
    return [
        Formula(
            symbol="A", bytes=peak, of=stage.value, meaning=f"activations of the stage, {measured}",
            correction="a figure of its own per stage, not one guess for the whole run",
        )
        for stage, peak in peaks.items()
    ]  # fmt: skip


def _predictions(evaluator: Evaluator, symbols: Sequence[Formula]) -> list[Formula]:
    """The published sums beside what the evaluator gets for the same placement."""
    known = {(f.symbol, f.of): f.bytes for f in symbols if f.format == "native"}
    total, most = (max(v for (s, _), v in known.items() if s == symbol) for symbol in ("S_total", "S_max"))
    leaf = max((v for (s, _), v in known.items() if s == "S_leaf"), default=0)
    work = max((v for (s, _), v in known.items() if s == "A"), default=0)
    stream = Place("*", "leaf", stream=True, host="pinned", writes_back=False)
    rows = (
        ("S_total + A", total, "everything resident", Place("*", "resident"), "stages take turns: the largest A once"),
        ("S_max + A", most, "model offloading", Place("*", "component"), "per stage: its component and its own A"),
        ("S_leaf + A", leaf, "leaf-level group offloading", Place("*", "leaf"), "the largest layer rarely runs at the peak"),
        ("2 S_leaf + A", 2 * leaf, "leaf level with a stream", stream, "a layer and its successor, not twice the largest"),
    )  # fmt: skip
    out = [
        Formula(
            symbol=symbol, bytes=evaluator.figures((place,)).allocated, published_bytes=weights + work, meaning=what,
            correction=why,
        )
        for symbol, weights, what, place, why in rows
    ]  # fmt: skip
    for component, parts in evaluator.index.weights.items():
        if not parts.blocks:
            continue
        for blocks in (1, 2):
            figures = evaluator.figures((Place("*", "leaf"), Place(component, "block", blocks)))
            out.append(
                Formula(
                    symbol=f"{blocks} S_block + A", bytes=figures.allocated, of=component,
                    published_bytes=blocks * known["S_block", component] + work,
                    meaning=f"block-level group offloading, {blocks} at a time, the rest at leaf level",
                    correction="S_unmatched stays too; with a stream the next block is there as well: 2 S_block",
                )
            )  # fmt: skip
    return out
