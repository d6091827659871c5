"""The calculator's symbols, and measurements that come without a trace."""

from __future__ import annotations

import pytest
from oomdoctor.errors import InputError
from oomdoctor.planner import compute_strategies
from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.formats import NATIVE, Sizes, weight_format
from oomdoctor.planner.formulas import formulas
from oomdoctor.planner.weights import Kind
from oomdoctor.techniques.effects import Place, Store
from oomdoctor.values import Measurement, Stage, StageUse, Trace


def test_symbols_are_the_sums_they_stand_for(flux, card) -> None:
    found = {(f.symbol, f.format, f.of): f.bytes for f in formulas(Evaluator(flux, card))}
    transformer = flux.components[2]
    assert found["S_total", "native", None] == flux.weights_bytes
    assert found["S_max", "native", "transformer"] == transformer.loaded_bytes
    assert found["S_block", "native", "transformer"] == transformer.largest_block_bytes
    assert found["S_unmatched", "native", "transformer"] == transformer.unmatched_bytes
    assert found["S_leaf", "native", "transformer"] == transformer.largest_leaf_bytes
    assert found["A", "native", "vae_decode"] > found["A", "native", "denoise"] > 0
    native, cast, four = (found["S_total", f, None] for f in ("native", "fp8", "nf4"))
    assert native / 2 < cast < native
    assert native / 4 < four < native / 3


def test_the_published_sums_stand_beside_what_the_trace_gives(flux, card) -> None:
    found = formulas(Evaluator(flux, card))
    highest = max(f.bytes for f in found if f.symbol == "A")
    leaf = max(f.bytes for f in found if f.symbol == "S_leaf" and f.format == "native")
    sums = {f.symbol: f for f in found if f.published_bytes is not None}
    assert sums["S_total + A"].published_bytes == flux.weights_bytes + highest
    assert sums["2 S_leaf + A"].published_bytes == 2 * leaf + highest
    for symbol in ("S_total + A", "S_max + A", "S_leaf + A"):
        assert 0 < sums[symbol].bytes <= sums[symbol].published_bytes
    assert "1 S_block + A" in sums and all(f.correction for f in sums.values())


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        (Store("*", "int8", linear_only=True), 64 * 32 + 64 * 4 + 64 * 2),
        (Store("*", "nf4", linear_only=True), 64 * 32 // 2 + 64 * 32 // 64 * 4 + 64 * 2),
        (Store("*", "gguf-q8", linear_only=True), 64 * 34 + 64 * 2),
        (Store("*", "gguf-q4", linear_only=True), 64 * 32 // 256 * 144 + 64 * 2),
        (Store("*", "fp8", respects_skip_patterns=True, compute_dtype="bf16"), 64 * 33),
        (Store("*", "fp32"), 64 * 33 * 4),
    ],
    ids=lambda v: v.format if isinstance(v, Store) else "",
)
def test_sizes_of_a_linear_layer_with_bias(store: Store, expected: int) -> None:
    kind = Kind(own_bytes=64 * 33 * 2, params=64 * 33, linear=True, in_features=32, castable=True)
    assert Sizes([kind], weight_format(store)).stored == [expected]
    assert Sizes([kind], NATIVE).stored == [64 * 33 * 2]


def test_quantisers_leave_other_modules_alone() -> None:
    convolution = Kind(own_bytes=9000, params=4500, linear=False, in_features=0, castable=True)
    assert Sizes([convolution], weight_format(Store("*", "nf4", linear_only=True))).stored == [9000]


def test_a_measurement_without_a_trace_is_planned_from_its_totals(flux, card, target_of) -> None:
    stages = (
        StageUse(stage=Stage.TEXT_ENCODE, component="text_encoder_2", activation_bytes=40 << 20, calls=1),
        StageUse(stage=Stage.DENOISE, component="transformer", activation_bytes=460 << 20, calls=28, seconds=11.0),
        StageUse(stage=Stage.VAE_DECODE, component="vae", activation_bytes=2432 << 20, calls=1, seconds=0.2),
    )
    coarse = flux.model_copy(update={"trace": None, "stages": stages})
    with_trace, without = Evaluator(flux, card), Evaluator(coarse, card)
    assert without.coarse and not with_trace.coarse
    for place in ("resident", "component"):
        fine, rough = (e.figures([Place("*", place)]).allocated for e in (with_trace, without))
        assert rough == pytest.approx(fine, rel=0.02)
    assert without.figures(()).seconds == pytest.approx(11.2)
    block = [Place("transformer", "block"), Place("*", "component")]
    assert without.figures(block).allocated == pytest.approx(with_trace.figures(block).allocated, rel=0.05)
    plan = compute_strategies(coarse, target_of(12, 64))
    assert plan.strategies
    assert any("totals" in line for line in plan.strategies[0].estimate.rests_on)


def test_empty_and_broken_measurements_are_refused(flux, card) -> None:
    with pytest.raises(InputError, match="measure"):
        Evaluator(Measurement(pipeline_class="X", model="x"), card)
    short = flux.trace.model_copy(update={"seconds": (0.0,)})
    with pytest.raises(InputError, match="length"):
        Evaluator(flux.model_copy(update={"trace": short}), card)
    lost = Trace(module=(3,), entered=(True,), stage=(Stage.DENOISE,), live_bytes=(0,), peak_bytes=(0,),
                 seconds=(0.0,), repeats=(1,))  # fmt: skip
    with pytest.raises(InputError, match="does not list"):
        Evaluator(flux.model_copy(update={"trace": lost}), card)
