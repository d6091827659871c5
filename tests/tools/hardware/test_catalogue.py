"""The rows of the catalogue, against each other and against what the architectures can do."""

from __future__ import annotations

import re

import pytest
from oomdoctor.hardware import card, cards, context_bytes
from oomdoctor.hardware.gpus.catalogue import rows
from oomdoctor.units import GIB
from oomdoctor.values.hardware import Card

NVIDIA = [c for c in cards() if c.compute_capability]
CORES_PER_SM = {(6, 0): 64, (6, 1): 128, (7, 0): 64, (7, 5): 64, (8, 0): 64, (9, 0): 128, (10, 0): 128}


def test_enough_cards_of_every_kind():
    assert len(cards()) >= 45
    assert len({c.name for c in cards()}) == len(cards())
    assert sum(c.compute_capability is None for c in cards()) >= 2
    wanted = "rtx-3060-12gb t4-16gb rtx-4090-24gb rtx-5090-32gb a100-40gb a100-80gb h100-80gb h200-141gb b200-180gb"
    assert {c.name for c in cards()} >= set(wanted.split())


@pytest.mark.parametrize("entry", rows(), ids=lambda r: r.card.name)
def test_a_row_makes_sense(entry):
    made = entry.card
    assert re.fullmatch(r"[a-z0-9-]+-\d+gb", made.name)
    # Torch reports less than the box promises, and never less than 90 % of it (ECC takes 6 %, HBM spares some more).
    assert 0.90 * entry.size_gb * GIB < made.total_bytes < 1.001 * entry.size_gb * GIB
    assert 100e9 <= made.memory_bytes_per_second <= 10e12
    assert 2e12 <= made.fp32_flops <= made.fp16_flops
    assert made.bf16_flops in (None, made.fp16_flops)
    assert made.fp8_flops is None or made.fp8_flops == pytest.approx(2 * made.fp16_flops, rel=0.02)
    assert made.pcie_generation in (3, 4, 5)
    assert made.pcie_lanes in (8, 16)
    assert made.context_bytes < made.total_bytes / 10
    assert "memory" in made.source


@pytest.mark.parametrize("made", NVIDIA, ids=lambda c: c.name)
def test_units_follow_the_architecture(made: Card):
    capability = made.compute_capability
    assert capability is not None
    assert (made.bf16_flops is not None) == (capability >= (8, 0))
    assert (made.fp8_flops is not None) == (capability >= (8, 9))


@pytest.mark.parametrize("made", NVIDIA, ids=lambda c: c.name)
def test_rates_are_units_times_a_clock(made: Card):
    """fp32 = 2 x cores x clock, and the tensor rate a fixed multiple per SM and clock: catches a mistyped figure."""
    assert made.compute_capability
    assert made.sm_count
    cores = made.sm_count * CORES_PER_SM.get(made.compute_capability, 128)
    clock = made.fp32_flops / (2 * cores)
    assert 0.9e9 < clock < 2.8e9
    if made.compute_capability < (7, 0) or made.name.startswith("gtx-16"):
        assert made.fp16_flops == made.fp32_flops  # no tensor cores
        return
    per_sm_and_clock = made.fp16_flops / made.sm_count / clock
    geforce = made.label.startswith("NVIDIA GeForce")
    if made.compute_capability in ((7, 5), (8, 6), (8, 9), (12, 0)):
        # GeForce accumulates in fp32 at half rate; so do the A10G and the L40.
        half = geforce or made.name in ("a10g-24gb", "l40-48gb")
        assert per_sm_and_clock == pytest.approx(512 if half else 1024, rel=0.09)
    else:
        assert 1000 < per_sm_and_clock < 9000 or made.name == "h20-96gb"  # cut down for export


def test_known_cards():
    """Figures that anyone can look up, one per kind of rule."""
    assert card("rtx-3060-12gb").total_bytes == 12622168064
    assert round(card("t4-16gb").total_bytes / GIB, 2) == 14.74
    assert round(card("rtx-4090-24gb").total_bytes / GIB, 2) == 23.64
    assert round(card("h200-141gb").total_bytes / GIB, 2) == 139.80
    assert round(card("b200-180gb").total_bytes / GIB, 2) == 178.35
    assert card("rtx-4090-24gb").fp16_flops == 165.2e12  # not the 330.3 with fp16 accumulation
    assert card("rtx-4090-24gb").fp8_flops == 330.3e12
    assert card("a100-80gb").fp16_flops == 312e12  # not the 624 of sparse matrices
    assert card("a100-80gb").fp8_flops is None
    assert card("h100-80gb").fp8_flops == 1978.9e12
    assert card("t4-16gb").bf16_flops is None
    assert card("p100-16gb").fp16_flops == card("p100-16gb").fp32_flops
    assert card("mi300x-192gb").compute_capability is None


def test_context_rule():
    assert context_bytes(28) == (192 + 70) << 20
    assert context_bytes(170) == (192 + 425) << 20
    assert context_bytes(None) == context_bytes(64)


def test_a_usual_card_is_alone_in_its_spelling():
    for first in rows():
        for second in rows():
            if first is not second and first.usual and second.usual:
                assert first.card.label != second.card.label
