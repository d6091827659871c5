"""What must hold for any model: less on the card never costs more of it, smaller formats are smaller."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.techniques.effects import Place, Store
from oomdoctor.units import MIB
from oomdoctor.values import Measurement, Stage

LAYER = st.tuples(st.integers(1, 64).map(lambda n: n * 16), st.integers(1, 64).map(lambda n: n * 16))
BLOCKS = st.lists(st.lists(LAYER, min_size=1, max_size=4), min_size=1, max_size=5)
MODELS = st.lists(st.tuples(BLOCKS, st.lists(LAYER, max_size=3), st.integers(0, 64)), min_size=1, max_size=3)
ANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def measured(tree) -> Callable[..., Measurement]:
    kind = type(tree)

    def make(models: list, executed: int = 2) -> Measurement:  # type: ignore[type-arg]
        fresh = kind()
        roots = []
        for number, (blocks, outside, activation) in enumerate(models):
            name = f"part_{number}"
            root = fresh.node(name, "", -1)
            for i, shape in enumerate(outside):
                fresh.node(name, f"outside{i}", root, shape, cast_ok=i % 2 == 0)
            for b, layers in enumerate(blocks):
                block = fresh.node(name, f"blocks.{b}", root)
                for i, shape in enumerate(layers):
                    fresh.node(name, f"blocks.{b}.{i}", block, shape, bias=i % 2 == 0)
            roots.append((root, activation))
        for root, activation in roots:
            for _ in range(executed):
                fresh.forward(root, Stage.DENOISE, 0, activation * MIB, 0.001)
        parts = tuple(fresh.component(f"part_{n}", "Part", ("blocks",)) for n in range(len(models)))
        return Measurement(pipeline_class="Made", model="made", components=parts, trace=fresh.trace())

    return make


@ANY
@given(models=MODELS)
def test_finer_placement_never_needs_more_card(models, measured, card) -> None:
    evaluator = Evaluator(measured(models), card)
    sizes = [evaluator.figures([Place("*", m)]).allocated for m in ("leaf", "block", "component", "resident")]
    assert sizes == sorted(sizes)
    assert evaluator.figures([Place("*", "sequential")]).allocated == sizes[0]
    streamed = evaluator.figures([Place("*", "leaf", stream=True, host="pinned", writes_back=False)])
    assert sizes[0] <= streamed.allocated <= sizes[3]


@ANY
@given(models=MODELS, blocks=st.integers(1, 6))
def test_larger_groups_never_need_less(models, blocks, measured, card) -> None:
    evaluator = Evaluator(measured(models), card)
    small = evaluator.figures([Place("*", "block", blocks)]).allocated
    assert small <= evaluator.figures([Place("*", "block", blocks * 2)]).allocated
    assert small <= evaluator.figures([Place("*", "component")]).allocated


@ANY
@given(models=MODELS)
def test_smaller_formats_hold_less_while_waiting(models, measured, card) -> None:
    evaluator = Evaluator(measured(models), card)
    cast = Store("*", "fp8", respects_skip_patterns=True, compute_dtype="bf16", at_load=False)
    four = Store("*", "nf4", linear_only=True, compute_dtype="bf16")
    native, fp8, nf4 = (evaluator.figures(e).load_vram for e in ((), (cast,), (four,)))
    assert fp8 <= native
    assert (
        evaluator.figures([cast, Place("*", "component")]).transfer
        <= evaluator.figures([Place("*", "component")]).transfer
    )
    assert nf4 <= native + 8 * MIB


@ANY
@given(models=MODELS)
def test_a_stream_is_never_slower_and_reserved_never_below_allocated(models, measured, card) -> None:
    evaluator = Evaluator(measured(models), card)
    for mode in ("leaf", "block"):
        plain = evaluator.figures([Place("*", mode)])
        streamed = evaluator.figures([Place("*", mode, stream=True, host="pinned", writes_back=False)])
        assert streamed.seconds <= plain.seconds * 1.0001
        assert plain.reserved >= plain.allocated
        assert streamed.reserved >= streamed.allocated
        assert streamed.host.pinned >= sum(w.component.loaded_bytes for w in evaluator.index.weights.values())


@ANY
@given(models=MODELS)
def test_the_digest_loses_no_weight_and_no_second(models, measured, card) -> None:
    measurement = measured(models)
    evaluator = Evaluator(measurement, card)
    trace = measurement.trace
    assert evaluator.figures(()).seconds == pytest.approx(
        sum(s * r for s, r in zip(trace.seconds, trace.repeats, strict=True))
    )
    assert evaluator.figures(()).load_vram == sum(c.loaded_bytes for c in measurement.components)
