"""Variables that take PyTorch's cache away or set another allocator: followed, or named as not simulated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from oomdoctor.diagnosis import diagnose
from oomdoctor.vgpu import VirtualCard, World, virtual_gpu
from oomdoctor.vgpu.allocator import OutOfCardMemory, Settings, UncachedAllocator
from oomdoctor.vgpu.refusals import as_torch, card_is_full

MIB = 1 << 20
CARD = VirtualCard("small", "NVIDIA GeForce RTX 3060", 2048 * MIB, context_bytes=500 * MIB)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "0")  # PyTorch asks whether it is set, not to what
    with virtual_gpu(CARD) as world:
        yield world


def megabytes(count: int) -> torch.Tensor:
    return torch.empty(count * MIB, dtype=torch.uint8, device="cuda")


def test_memory_goes_back_to_the_driver_and_pytorch_counts_nothing(world: World) -> None:
    kept = megabytes(30)
    gone = megabytes(500)
    del gone
    assert torch.cuda.mem_get_info() == ((2048 - 500 - 30) * MIB, 2048 * MIB)
    assert torch.cuda.memory_allocated() == torch.cuda.max_memory_reserved() == 0
    assert set(torch.cuda.memory_stats().values()) <= {0, -1, 1}
    assert world.gpu.allocator.allocated == world.gpu.allocator.reserved == kept.nbytes
    assert world.gpu.allocator.peak_reserved == 530 * MIB


def test_what_fails_is_the_call_of_the_driver(world: World) -> None:
    kept = megabytes(1000)
    with pytest.raises(RuntimeError, match="CUDA error: out of memory") as refused:
        megabytes(600)
    assert not isinstance(refused.value, torch.OutOfMemoryError)
    assert card_is_full(refused.value)
    assert not card_is_full(RuntimeError("CUDA error: out of memory"))
    assert diagnose(f"RuntimeError: {refused.value}").is_oom
    del kept


def test_words_follow_the_version() -> None:
    for version, word in (((2, 6), "CUDA_LAUNCH_BLOCKING"), ((2, 13), "CUDA_LOG_FILE")):
        allocator = UncachedAllocator(64 * MIB, torch_version=version)
        first = allocator.malloc(60 * MIB)
        with pytest.raises(OutOfCardMemory, match=word) as refused:
            allocator.malloc(5 * MIB)
        assert "out of memory" in str(as_torch(refused.value))
        allocator.record_stream(first, 3)
        allocator.free(first)
        with pytest.raises(ValueError, match="double free"):
            allocator.free(first)
        assert allocator.reserved == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("backend:cudaMallocAsync", "cudaMallocAsync"),
        ("pinned_use_background_threads:True", "background_threads"),
        ("graph_capture_record_stream_reuse:True", "capture"),
    ],
)
def test_options_that_are_not_followed_are_named(text: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Settings.parse("expandable_segments:True,garbage_collection_threshold:0.6").not_simulated()
    assert named in " ".join(Settings.parse(text).not_simulated())
    if torch.__version__ >= "2.9" or "graph" not in text:
        monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", text)
        with virtual_gpu(CARD) as world:
            megabytes(1)
            assert any(named in sentence for sentence in world.assumptions)
