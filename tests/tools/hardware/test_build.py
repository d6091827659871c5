"""Cards from what a driver says, and cards of which only the memory is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.errors import InputError, UnknownCard
from oomdoctor.hardware import card, card_for, card_with_memory, cards, catalogue_name, custom_card
from oomdoctor.units import GIB, MIB
from oomdoctor.values.hardware import Gpu


def gpu(name: str, total: int | None, capability: tuple[int, int] | None = None, **more: object) -> Gpu:
    return Gpu(index=0, name=name, family="cuda", total_bytes=total, compute_capability=capability, **more)


@pytest.mark.parametrize("made", cards(), ids=lambda c: c.name)
def test_every_card_is_found_again_by_its_label_and_memory(made):
    found = gpu(made.label, made.total_bytes)
    assert card_for(found) == made
    assert catalogue_name(found) == made.name


@pytest.mark.parametrize(
    ("name", "total", "expected"),
    [
        ("NVIDIA GeForce RTX 3060", 12288 * MIB, "rtx-3060-12gb"),  # Windows reports the whole box
        ("NVIDIA GeForce RTX 3060", 11910 * MIB, "rtx-3060-12gb"),  # a newer driver keeps more back
        ("NVIDIA GeForce RTX 3060", 8192 * MIB, "rtx-3060-8gb"),
        ("NVIDIA RTX A5000", 22721 * MIB, "rtx-a5000-24gb"),  # ECC on
        ("NVIDIA A40", 48688 * MIB, "a40-48gb"),  # ECC off
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97250 * MIB, "rtx-pro-6000-blackwell-96gb"),
    ],
)
def test_totals_differ_by_driver_and_system(name, total, expected):
    found = gpu(name, total)
    assert catalogue_name(found) == expected
    made = card_for(found)
    assert made.name == expected
    assert made.total_bytes == total  # this machine's, not the catalogue's
    assert made.fp16_flops == card(expected).fp16_flops


def test_a_known_card_with_other_memory():
    """A 4090 that was given 48 GB in a workshop."""
    found = gpu("NVIDIA GeForce RTX 4090", 48500 * MIB, (8, 9))
    made = card_for(found)
    assert catalogue_name(found) is None
    assert made.name == "rtx-4090-47.4gib"
    assert made.total_bytes == 48500 * MIB
    assert made.fp16_flops == card("rtx-4090-24gb").fp16_flops
    assert "rtx-4090-24gb of the catalogue with 47.4 GiB instead of 23.6 GiB" in made.source


def test_an_unknown_card_gets_the_lowest_rates_of_its_generation():
    made = card_for(gpu("NVIDIA Z1000", 10 * GIB, (8, 6)))
    kin = [c for c in cards() if c.compute_capability == (8, 6)]
    assert made.total_bytes == 10 * GIB
    assert made.compute_capability == (8, 6)
    assert made.fp16_flops == min(c.fp16_flops for c in kin)
    assert made.memory_bytes_per_second == min(c.memory_bytes_per_second for c in kin)
    assert made.context_bytes == max(c.context_bytes for c in kin)
    assert made.bf16_flops is not None
    assert made.fp8_flops is None
    assert "not in the catalogue" in made.source
    assert "8.6" in made.source


def test_a_card_newer_than_the_catalogue_takes_the_newest_known():
    made = card_for(gpu("NVIDIA Rubin", 288 * GIB, (13, 0)))
    assert made.compute_capability == (13, 0)
    assert made.fp8_flops is not None
    assert "12.0" in made.source


def test_a_card_older_than_the_catalogue():
    made = card_for(gpu("Tesla K80", 11 * GIB, (3, 7)))
    assert made.fp16_flops == min(c.fp16_flops for c in cards() if c.compute_capability)
    assert made.bf16_flops is None


def test_an_unknown_amd_card():
    made = card_for(Gpu(index=0, name="AMD GPU 0x1234", family="hip", total_bytes=16 * GIB))
    assert made.compute_capability is None
    assert "AMD" in made.source


def test_a_slice_of_a_card():
    whole = card("a100-pcie-80gb")
    made = card_for(gpu("NVIDIA A100 80GB PCIe MIG 1g.10gb", 9728 * MIB, (8, 0), mig=True))
    assert made.total_bytes == 9728 * MIB
    assert made.fp16_flops == pytest.approx(whole.fp16_flops / 7)
    assert made.memory_bytes_per_second < whole.memory_bytes_per_second / 7
    assert made.sm_count == 15
    assert "MIG slice of a100-pcie-80gb" in made.source
    assert catalogue_name(gpu("NVIDIA A100 80GB PCIe MIG 1g.10gb", 9728 * MIB, mig=True)) is None


def test_a_slice_of_an_unknown_card():
    made = card_for(gpu("NVIDIA Z9 MIG 2g.20gb", 20 * GIB, (9, 0), mig=True))
    assert made.total_bytes == 20 * GIB
    assert "not in the catalogue" in made.source


def test_a_card_without_known_memory_is_refused():
    with pytest.raises(UnknownCard, match=r"--gpu.*--vram"):
        card_for(gpu("Orin (nvgpu)", None))


def test_only_the_memory_is_known():
    made = custom_card(16 * GIB)
    assert (made.name, made.total_bytes, made.compute_capability) == ("custom-16gib", 16 * GIB, (8, 6))
    assert custom_card(11 * GIB + GIB // 2).name == "custom-11.5gib"
    assert custom_card(24 * GIB, (8, 9)).fp8_flops is not None
    assert "upper bound" in made.source


@pytest.mark.parametrize("total", [0, -GIB, 12, 12000, 100_000 * GIB])
def test_sizes_that_no_card_has(total):
    with pytest.raises(InputError, match="--vram 12"):
        custom_card(total)
    with pytest.raises(InputError, match="--vram 12"):
        card_with_memory(card("rtx-3060-12gb"), total)


@given(st.sampled_from(cards()), st.integers(GIB, 300 * GIB))
def test_only_memory_and_words_change(made, total):
    changed = card_with_memory(made, total)
    assert changed.total_bytes == total
    words = {"name", "total_bytes", "source"}
    assert changed.model_dump(exclude=words) == made.model_dump(exclude=words)
