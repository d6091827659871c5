"""Requests, splits, joins and the figures that follow, as PyTorch documents and does them."""

from __future__ import annotations

import pytest
from oomdoctor.vgpu.allocator import CachingAllocator, OutOfCardMemory, Settings

MIB = 1 << 20
GIB = 1 << 30


def test_small_requests_share_a_2_mib_segment() -> None:
    card = CachingAllocator(8 * GIB)
    first = card.malloc(1)
    second = card.malloc(513)
    assert (first.size, second.size) == (512, 1024)
    assert second.address == first.address + 512
    assert (card.allocated, card.reserved) == (1536, 2 * MIB)


def test_medium_and_large_segments() -> None:
    card = CachingAllocator(8 * GIB)
    card.malloc(MIB + 1)
    assert card.reserved == 20 * MIB
    card.malloc(10 * MIB)  # fits into the rest of the 20 MiB
    assert card.reserved == 20 * MIB
    card.malloc(33 * MIB)
    assert card.reserved == 54 * MIB


def test_a_remainder_of_up_to_1_mib_is_not_split_off() -> None:
    card = CachingAllocator(8 * GIB)
    card.free(card.malloc(32 * MIB))
    assert card.malloc(31 * MIB).size == 32 * MIB
    assert card.allocated == 32 * MIB


def test_freeing_joins_neighbours_and_empty_cache_returns_them() -> None:
    card = CachingAllocator(8 * GIB)
    blocks = [card.malloc(4 * MIB) for _ in range(5)]
    assert card.reserved == 20 * MIB
    for at in (1, 3, 2, 0, 4):
        card.free(blocks[at])
    assert len(card.large.blocks()) == 1
    card.empty_cache()
    assert (card.allocated, card.reserved, card.peak_reserved) == (0, 0, 20 * MIB)


def test_streams_do_not_share_free_blocks() -> None:
    card = CachingAllocator(8 * GIB)
    card.free(card.malloc(64 * MIB, stream=0))
    card.malloc(64 * MIB, stream=7)
    assert card.reserved == 128 * MIB


def test_the_cache_is_released_before_giving_up() -> None:
    card = CachingAllocator(1 * GIB, outside_bytes=100 * MIB)
    card.free(card.malloc(600 * MIB))
    card.malloc(700 * MIB)
    assert card.reserved == 700 * MIB
    assert card.memory_stats()["num_alloc_retries"] == 1


def test_failure_carries_figures_and_words() -> None:
    card = CachingAllocator(1 * GIB, outside_bytes=100 * MIB)
    card.malloc(700 * MIB)
    with pytest.raises(OutOfCardMemory) as caught:
        card.malloc(300 * MIB - 3)
    error = caught.value
    assert (error.requested, error.free, error.allocated) == (300 * MIB, 224 * MIB, 700 * MIB)
    assert error.text.startswith(
        "CUDA out of memory. Tried to allocate 300.00 MiB. GPU 0 has a total capacity of 1024.00 MiB of which "
        "224.00 MiB is free. Including non-PyTorch memory, this process has 800.00 MiB memory in use. "
        "Of the allocated memory 700.00 MiB is allocated by PyTorch, and 0 bytes is reserved by PyTorch but unallocated."
    )
    assert card.memory_stats()["num_ooms"] == 1


def test_fraction_is_a_cap_of_its_own() -> None:
    card = CachingAllocator(8 * GIB)
    card.set_memory_fraction(0.5)
    with pytest.raises(OutOfCardMemory, match=r"4\.00 GiB allowed; Of the allocated"):
        card.malloc(5 * GIB)
    card.malloc(4 * GIB)


def test_an_empty_request_costs_nothing() -> None:
    card = CachingAllocator(8 * GIB)
    block = card.malloc(0)
    card.record_stream(block, 3)
    card.free(block)
    assert card.memory_stats()["allocation.all.allocated"] == 0


def test_double_free_is_refused() -> None:
    card = CachingAllocator(8 * GIB)
    block = card.malloc(10)
    card.free(block)
    with pytest.raises(ValueError, match="double free"):
        card.free(block)


class Clock:
    """Streams whose work ends when the test says so."""

    def __init__(self) -> None:
        self.finished: set[int] = set()

    def record(self, stream: int) -> int:
        return stream

    def done(self, token: int) -> bool:
        return token in self.finished


def test_a_recorded_block_waits_for_the_other_stream() -> None:
    clock = Clock()
    card = CachingAllocator(8 * GIB, streams=clock)
    block = card.malloc(64 * MIB)
    card.record_stream(block, 5)
    card.free(block)
    assert (card.allocated, card.memory_stats()["active_bytes.all.current"]) == (0, 64 * MIB)
    card.malloc(64 * MIB)
    assert card.reserved == 128 * MIB
    clock.finished.add(5)
    card.malloc(64 * MIB)
    assert card.reserved == 128 * MIB


def test_a_block_recorded_on_its_own_stream_is_free_at_once() -> None:
    card = CachingAllocator(8 * GIB, streams=Clock())
    block = card.malloc(64 * MIB, stream=5)
    card.record_stream(block, 5)
    card.free(block)
    card.malloc(64 * MIB, stream=5)
    assert card.reserved == 64 * MIB


def test_expandable_segments_do_not_fragment() -> None:
    def grow(text: str) -> int:
        card = CachingAllocator(8 * GIB, settings=Settings.parse(text))
        for size in range(100, 1000, 100):
            card.free(card.malloc(size * MIB))
        return card.reserved

    assert grow("") == 4500 * MIB
    assert grow("expandable_segments:True") == 900 * MIB


def test_private_pools_keep_their_memory() -> None:
    card = CachingAllocator(8 * GIB)
    card.begin_pool((0, 1))
    card.free(card.malloc(64 * MIB))
    card.end_pool((0, 1))
    card.malloc(64 * MIB)
    assert card.reserved == 128 * MIB
    card.empty_cache()
    assert card.reserved == 128 * MIB
    card.release_pool((0, 1))
    card.empty_cache()
    assert card.reserved == 64 * MIB
