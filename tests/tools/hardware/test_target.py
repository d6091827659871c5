"""What to plan for, from names, figures and what was detected."""

from __future__ import annotations

import pytest
from oomdoctor.errors import InputError, UnknownCard
from oomdoctor.hardware import card, target_auto, target_for
from oomdoctor.units import GIB
from oomdoctor.values.hardware import Gpu, Hardware, Ram

RAM = Ram(total_bytes=64 * GIB, available_bytes=40 * GIB, limit_bytes=46 * GIB, pinned_cap_bytes=500 << 20)


def hardware(*gpus: Gpu) -> Hardware:
    return Hardware(gpus=gpus, ram=RAM, os="Linux", versions={"torch": "2.6.0"}, disk_free_bytes=100 * GIB)


def gpu(index: int = 0, total: int | None = 12 * GIB, free: int | None = 10 * GIB, **more: object) -> Gpu:
    fields: dict[str, object] = {"name": "NVIDIA GeForce RTX 3060", "family": "cuda", "compute_capability": (8, 6)}
    return Gpu(index=index, total_bytes=total, free_bytes=free, **(fields | more))


def test_a_named_card_is_empty():
    target = target_for(card("RTX 3060"), ram_bytes=64 * GIB)
    assert target.vram_bytes == target.card.total_bytes == 12622168064
    assert target.ram_bytes == 64 * GIB
    assert target.gpu_count == 1


def test_a_named_card_in_this_machine():
    target = target_for(card("RTX 4090"), hardware=hardware())
    assert target.ram_bytes == 40 * GIB  # available, not total
    assert target.pinned_cap_bytes == 500 << 20
    assert target.versions == {"torch": "2.6.0"}
    assert target.disk_free_bytes == 100 * GIB


def test_figures_given_by_hand_win():
    target = target_for(card("RTX 4090"), vram_bytes=20 * GIB, ram_bytes=16 * GIB, hardware=hardware())
    assert (target.vram_bytes, target.ram_bytes) == (20 * GIB, 16 * GIB)
    assert target.card == card("RTX 4090")  # others hold the rest


def test_more_memory_than_the_card_has():
    target = target_for(card("RTX 4090"), vram_bytes=48 * GIB, ram_bytes=16 * GIB)
    assert target.card.total_bytes == target.vram_bytes == 48 * GIB


def test_too_little_to_start():
    with pytest.raises(InputError, match="CUDA context"):
        target_for(card("RTX 4090"), vram_bytes=12, ram_bytes=16 * GIB)  # 12 meant GiB
    with pytest.raises(InputError, match="--ram 32"):
        target_for(card("RTX 4090"), ram_bytes=32)


def test_ram_is_never_guessed():
    with pytest.raises(InputError, match="--ram"):
        target_for(card("RTX 4090"))


def test_auto_takes_the_free_memory():
    target = target_auto(hardware(gpu()))
    assert target.card.name == "rtx-3060-12gb"
    assert target.card.total_bytes == 12 * GIB
    assert target.vram_bytes == 10 * GIB
    assert target.ram_bytes == 40 * GIB


def test_auto_without_free_memory_known():
    assert target_auto(hardware(gpu(free=None))).vram_bytes == 12 * GIB


def test_auto_takes_the_card_with_most_room():
    other = gpu(1, 24 * GIB, 5 * GIB, name="NVIDIA GeForce RTX 4090", compute_capability=(8, 9))
    target = target_auto(hardware(other, gpu()))
    assert target.card.name == "rtx-3060-12gb"
    assert target.gpu_count == 2


def test_auto_with_figures_given_by_hand():
    target = target_auto(hardware(gpu()), vram_bytes=6 * GIB, ram_bytes=8 * GIB)
    assert (target.vram_bytes, target.ram_bytes) == (6 * GIB, 8 * GIB)


def test_auto_without_a_gpu_says_what_to_do():
    with pytest.raises(UnknownCard, match="no GPU.*--gpu 'RTX 3060'.*--vram"):
        target_auto(hardware())


def test_auto_with_a_gpu_of_unknown_memory():
    with pytest.raises(UnknownCard, match="Orin is unknown.*--vram"):
        target_auto(hardware(gpu(total=None, free=None, name="Orin")))


def test_auto_on_a_card_that_others_have_filled():
    with pytest.raises(InputError, match="CUDA context"):
        target_auto(hardware(gpu(free=100 << 20)))
