"""Peaks on traces small enough to be worked out by hand."""

from __future__ import annotations

import pytest
from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.parts import PROCESS_BYTES
from oomdoctor.techniques.effects import Place, Release, Store
from oomdoctor.units import MIB
from oomdoctor.values import Card, Measurement, Stage

W = 2 * MIB  # bytes of one layer: 1024 x 1024 in bf16
COPY_FREE = {"stream": True, "host": "pinned", "writes_back": False}
FP8 = {"respects_skip_patterns": True, "compute_dtype": "bf16", "at_load": False}
NF4 = {"linear_only": True, "compute_dtype": "bf16"}


def two_component(tree) -> Measurement:
    """An encoder of three layers and a denoiser of one loose layer and four blocks of two layers each."""
    encoder = tree.node("text_encoder", "", -1)
    for i in range(3):
        tree.node("text_encoder", f"layer{i}", encoder, (1024, 1024))
    dit = tree.node("transformer", "", -1)
    tree.node("transformer", "embed", dit, (1024, 1024), cast_ok=False)
    for i in range(4):
        block = tree.node("transformer", f"blocks.{i}", dit)
        for part in "ab":
            tree.node("transformer", f"blocks.{i}.{part}", block, (1024, 1024))
    tree.forward(encoder, Stage.TEXT_ENCODE, 0, 1 * MIB, 0.01)
    for repeats in (1, 9):
        tree.forward(dit, Stage.DENOISE, 1 * MIB, 4 * MIB, 0.01, repeats)
    components = (
        tree.component("text_encoder", "Encoder"),
        tree.component("transformer", "Denoiser", ("blocks",)),
    )
    return Measurement(
        pipeline_class="Made",
        model="made",
        components=components,
        weights_bytes=12 * W,
        trace=tree.trace(),
        offload_sequence=("text_encoder", "transformer"),
    )


@pytest.fixture
def evaluator(tree, card: Card) -> Evaluator:
    return Evaluator(two_component(tree), card)


def test_resident_is_all_weights_and_the_highest_activation(evaluator: Evaluator) -> None:
    assert evaluator.figures(()).allocated == 12 * W + 5 * MIB


def test_loading_straight_to_the_card_needs_no_room_in_ram(evaluator: Evaluator) -> None:
    usual, direct = evaluator.figures(()), evaluator.figures([Place("*", "resident", direct=True)])
    assert (direct.allocated, direct.load_vram, direct.seconds) == (usual.allocated, usual.load_vram, usual.seconds)
    assert direct.host.peak == PROCESS_BYTES + 2 * W
    assert usual.host.peak == PROCESS_BYTES + 12 * W


def test_component_at_a_time_is_the_larger_component(evaluator: Evaluator) -> None:
    figures = evaluator.figures([Place("*", "component")])
    assert figures.allocated == 9 * W + 5 * MIB
    assert figures.stages[Stage.TEXT_ENCODE].allocated == 3 * W + 1 * MIB


@pytest.mark.parametrize(("blocks", "in_group"), [(1, 2), (2, 4), (3, 6), (4, 8)])
def test_block_is_what_is_outside_blocks_plus_a_group(evaluator: Evaluator, blocks: int, in_group: int) -> None:
    figures = evaluator.figures([Place("*", "leaf"), Place("transformer", "block", blocks)])
    assert figures.stages[Stage.DENOISE].allocated == (1 + in_group) * W + 5 * MIB


def test_block_with_a_stream_holds_the_next_block_too(evaluator: Evaluator) -> None:
    figures = evaluator.figures([Place("*", "leaf"), Place("transformer", "block", 1, **COPY_FREE)])
    assert figures.stages[Stage.DENOISE].allocated == (1 + 2 + 2) * W + 5 * MIB


def test_leaf_is_one_layer_and_with_a_stream_two(evaluator: Evaluator) -> None:
    assert evaluator.figures([Place("*", "leaf")]).allocated == W + 5 * MIB
    assert evaluator.figures([Place("*", "sequential")]).allocated == W + 5 * MIB
    # The last layer of a forward has no successor; all others have their successor beside them.
    assert evaluator.figures([Place("*", "leaf", **COPY_FREE)]).allocated == 2 * W + 5 * MIB


def test_a_component_without_blocks_is_moved_whole_at_block_level(evaluator: Evaluator) -> None:
    figures = evaluator.figures([Place("*", "block")])
    assert figures.stages[Stage.TEXT_ENCODE].allocated == 3 * W + 1 * MIB


def test_fp8_casting_halves_what_is_cast_and_unpacks_one_layer(evaluator: Evaluator) -> None:
    figures = evaluator.figures([Store("transformer", "fp8", **FP8)])
    stored = 3 * W + W + 8 * W // 2  # the encoder, the skipped embedding, the blocks
    assert evaluator.figures([Store("transformer", "fp8", **FP8)]).load_vram == stored
    assert figures.allocated == stored + W // 2 + 5 * MIB


def test_nf4_packs_codes_and_scales_and_unpacks_one_layer(evaluator: Evaluator) -> None:
    figures = evaluator.figures([Store("transformer", "nf4", **NF4)])
    packed = 9 * (1024 * 1024 // 2 + 1024 * 1024 // 64 * 4)
    assert figures.allocated == 3 * W + packed + W + 5 * MIB


def test_what_was_released_no_longer_counts(evaluator: Evaluator) -> None:
    figures = evaluator.figures([Release("text_encoder", Stage.TEXT_ENCODE)])
    assert figures.stages[Stage.DENOISE].allocated == 9 * W + 5 * MIB
    assert figures.stages[Stage.TEXT_ENCODE].allocated == 12 * W + 1 * MIB


def test_transfers_are_bytes_over_rates(evaluator: Evaluator) -> None:
    rates = evaluator.rates
    leaf = evaluator.figures([Place("transformer", "leaf")])
    moved = 10 * 9 * W
    assert leaf.transfer == pytest.approx(moved / rates.pageable + moved / rates.copy_back)
    one_way = evaluator.figures([Place("transformer", "leaf", writes_back=False)])
    assert one_way.transfer == pytest.approx(moved / rates.pageable)
    component = evaluator.figures([Place("*", "component")])
    assert component.transfer == pytest.approx(12 * W / rates.pageable + 12 * W / rates.copy_back)


def test_a_stream_hides_transfers_behind_compute(evaluator: Evaluator) -> None:
    plain = evaluator.figures(())
    assert plain.seconds == pytest.approx(3 * 0.01 + 10 * 9 * 0.01)
    streamed = evaluator.figures([Place("transformer", "leaf", **COPY_FREE)])
    # Each layer computes for 10 ms and is fetched in well under one: nothing but launches shows.
    assert streamed.seconds == pytest.approx(plain.seconds, rel=0.02)
    assert streamed.seconds < evaluator.figures([Place("transformer", "leaf")]).seconds


def test_pinned_copies_are_rounded_to_powers_of_two(tree, card: Card) -> None:
    root = tree.node("transformer", "", -1)
    tree.node("transformer", "a", root, (1000, 1000))
    tree.forward(root, Stage.DENOISE, 0, MIB, 0.0)
    measurement = Measurement(
        pipeline_class="Made", model="made", components=(tree.component("transformer", "D"),), trace=tree.trace()
    )
    evaluator = Evaluator(measurement, card)
    assert evaluator.figures([Place("*", "leaf", **COPY_FREE)]).host.pinned == 1 << 21
    assert not evaluator.timed


def test_a_second_prompt_leaves_the_last_encoder_beside_the_first(tree, card: Card) -> None:
    """Classifier-free guidance encodes twice; the first encoder has no predecessor that it could send away."""
    first, second, dit = (tree.node(n, "", -1) for n in ("text_encoder", "text_encoder_2", "unet"))
    tree.node("text_encoder", "w", first, (1024, 1024))
    tree.node("text_encoder_2", "w", second, (4096, 1024))
    tree.node("unet", "w", dit, (1024, 1024))
    for _ in range(2):
        for encoder in (first, second):
            tree.forward(encoder, Stage.TEXT_ENCODE, 0, MIB, 0.0)
    tree.forward(dit, Stage.DENOISE, 0, 64 * MIB, 0.0)
    names = ("text_encoder", "text_encoder_2", "unet")
    measurement = Measurement(
        pipeline_class="Made",
        model="made",
        components=tuple(tree.component(n, "M") for n in names),
        trace=tree.trace(),
        offload_sequence=names,
    )
    figures = Evaluator(measurement, card).figures([Place("*", "component")])
    assert figures.stages[Stage.TEXT_ENCODE].allocated == 5 * W + MIB
    assert figures.stages[Stage.DENOISE].allocated == W + 64 * MIB
