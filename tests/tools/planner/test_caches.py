"""What loading and earlier stages leave in the allocator's cache, and what 8-bit products need beside the weights."""

from __future__ import annotations

import pytest
from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.formats import mixed_extra, weight_format
from oomdoctor.planner.weights import Kind
from oomdoctor.techniques.effects import AllocatorSetting, Place, Store
from oomdoctor.units import GIB, MIB
from oomdoctor.values import Card, Measurement

INT8 = Store("text_encoder_2", "int8", linear_only=True, compute_dtype="bf16")
LEAF = Place("*", "leaf")
STREAM = Place("*", "leaf", stream=True, host="pinned_on_demand", writes_back=False)


def with_reserved(measurement: Measurement, share: float, arena: float) -> Measurement:
    """As if the traced run had held ``share`` and one range ``arena`` of what activations needed so far in a stage."""
    trace = measurement.trace
    assert trace is not None
    reserved, ranges = [], []
    most = stage_most = 0
    for row, (stage, peak) in enumerate(zip(trace.stage, trace.peak_bytes, strict=True)):
        stage_most = peak if row and stage != trace.stage[row - 1] else max(stage_most, peak)
        most = max(most, round(share * peak))
        reserved.append(measurement.weights_bytes + most)
        ranges.append(round(arena * stage_most))
    changed = trace.model_copy(update={"reserved_bytes": tuple(reserved), "arena_bytes": tuple(ranges)})
    return measurement.model_copy(update={"trace": changed})


def with_launches(measurement: Measurement, count: int) -> Measurement:
    """As if so many kernels were launched between any two rows of the trace."""
    assert measurement.trace is not None
    changed = measurement.trace.model_copy(update={"launches": (count,) * len(measurement.trace.module)})
    return measurement.model_copy(update={"trace": changed})


def test_portions_pile_up_as_far_as_launches_can_be_queued(flux: Measurement, card: Card) -> None:
    free = Place("*", "leaf", stream=True, record_stream=True, host="pinned", writes_back=False)
    assert flux.trace is not None
    slow = flux.trace.model_copy(update={"seconds": tuple(100 * s for s in flux.trace.seconds)})
    slowly = flux.model_copy(update={"trace": slow})
    most = [Evaluator(with_launches(slowly, n), card).figures((free,)).reserved for n in (1, 20, 400)]
    assert most[0] > 2 * most[2], "few launches: copying runs far ahead"
    assert most[0] >= most[1] >= most[2]
    waits = Place("*", "leaf", stream=True, host="pinned", writes_back=False)
    assert Evaluator(with_launches(slowly, 1), card).figures((waits,)).reserved <= most[2]


def test_the_traced_run_itself_comes_out_as_it_was(flux: Measurement, card: Card) -> None:
    traced = with_reserved(flux, 1.6, 1.2)
    found = Evaluator(traced, card).figures(())
    assert traced.trace is not None
    assert found.reserved == pytest.approx(max(traced.trace.reserved_bytes), rel=0.01)


def test_expandable_segments_take_the_measured_range(flux: Measurement, card: Card) -> None:
    evaluator = Evaluator(with_reserved(flux, 1.6, 1.2), card)
    found = evaluator.figures((LEAF, AllocatorSetting("expandable_segments", "True")))
    activation = max(t.peak for t in evaluator.index.tables)
    assert found.reserved == pytest.approx(1.2 * activation, rel=0.05)


def test_the_segment_of_loading_serves_what_comes_after(flux: Measurement, card: Card) -> None:
    """A text encoder converted on the card leaves one segment of its size, which holds the VAE's work."""
    evaluator = Evaluator(with_reserved(flux, 1.6, 1.2), card)
    plain, converted = evaluator.figures((LEAF,)), evaluator.figures((LEAF, INT8))
    cache = evaluator.folder.total("text_encoder_2", evaluator._part("text_encoder_2", _held(INT8)).holding.format)
    assert cache > 1.2 * max(t.peak for t in evaluator.index.tables)
    assert cache <= converted.reserved < cache + 0.3 * GIB
    assert plain.reserved < converted.reserved < plain.reserved + cache


def test_4_bit_scales_stay_on_the_card_when_a_stream_takes_the_weights(flux: Measurement, card: Card) -> None:
    evaluator = Evaluator(flux, card)
    nf4 = Store("transformer", "nf4", linear_only=True, compute_dtype="bf16")
    streamed, moved = evaluator.figures((STREAM, nf4)), evaluator.figures((LEAF, nf4))
    scales = evaluator.folder.total("transformer", evaluator._part("transformer", _held(nf4)).holding.format, "scales")
    assert scales > 500 * MIB
    assert streamed.stages[max(streamed.stages)].allocated >= moved.stages[max(moved.stages)].allocated + scales


def test_what_was_converted_on_the_card_waits_in_host_memory(flux: Measurement, card: Card) -> None:
    mapped = tuple(c.model_copy(update={"anonymous_bytes": 0}) for c in flux.components)
    evaluator = Evaluator(flux.model_copy(update={"components": mapped}), card)
    whole, converted = evaluator.figures((STREAM,)), evaluator.figures((STREAM, INT8))
    added = converted.host.peak - whole.host.peak
    size = evaluator.folder.total("text_encoder_2", evaluator._part("text_encoder_2", _held(INT8)).holding.format)
    assert added == pytest.approx(size, rel=0.05)


def test_8_bit_products_need_memory_beside_the_input_and_no_copy_of_the_weights(flux: Measurement, card: Card) -> None:
    trace = flux.trace
    assert trace is not None
    # Every linear layer gives out 30 MiB that stay alive until its block ends.
    live, alive = [], 0
    for node, entered in zip(trace.module, trace.entered, strict=True):
        module = trace.modules[node]
        if not entered and module.own_bytes and module.component == "transformer":
            alive += 30 * MIB
        elif not entered and not module.own_bytes:
            alive = 0
        live.append(alive)
    grown = trace.model_copy(update={"live_bytes": tuple(live)})
    evaluator = Evaluator(flux.model_copy(update={"trace": grown}), card)
    mixed = Store("transformer", "int8", linear_only=True, compute_dtype="bf16")
    weight_only = Store("transformer", "int8", linear_only=True, compute_dtype="bf16", on_card=False)
    place = Place("*", "component")
    a, b = (evaluator.figures((place, s)).stages for s in (mixed, weight_only))
    denoise = next(s for s in a if s.value == "denoise")
    assert a[denoise].allocated > b[denoise].allocated


def test_the_size_of_an_8_bit_product() -> None:
    kind = Kind(own_bytes=64 * 32 * 2, params=64 * 32, linear=True, in_features=32, castable=True)
    rows = 1000
    mixed = weight_format(Store("*", "int8", linear_only=True, compute_dtype="bf16"))
    out = rows * 64
    assert mixed_extra(kind, mixed, made=2 * out) == rows * 32 * 2 + out * (4 + 2 + 2)
    assert mixed_extra(kind, weight_format(Store("*", "nf4", linear_only=True)), made=2 * out) == 0
    assert mixed_extra(kind, mixed, made=0) == 0


def _held(store: Store):
    from oomdoctor.planner.scenario import holding

    return holding(LEAF, store)
