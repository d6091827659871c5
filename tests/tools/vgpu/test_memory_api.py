"""``torch.cuda``'s questions about memory, asked within a virtual GPU session."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from oomdoctor.diagnosis import diagnose
from oomdoctor.vgpu import VirtualCard, World, virtual_gpu
from torch.cuda import _memory_viz

MIB = 1 << 20
CARD = VirtualCard("small", "NVIDIA GeForce RTX 3060", 2048 * MIB, context_bytes=500 * MIB)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    with virtual_gpu(CARD) as world:
        yield world


def megabytes(count: int) -> torch.Tensor:
    return torch.empty(count * MIB, dtype=torch.uint8, device="cuda")


def test_figures_agree_with_each_other(world: World) -> None:
    kept = megabytes(30)
    gone = megabytes(5)
    del gone
    stats = torch.cuda.memory_stats()
    nested = torch.cuda.memory_stats_as_nested_dict()
    assert torch.cuda.memory_allocated() == stats["allocated_bytes.all.current"] == 30 * MIB
    assert torch.cuda.max_memory_allocated() == stats["allocated_bytes.all.peak"] == 35 * MIB
    assert torch.cuda.memory_reserved() == nested["reserved_bytes"]["large_pool"]["current"] == 50 * MIB
    assert list(stats) == sorted(stats)
    assert stats["segment.all.current"] == stats["num_device_alloc"] == 2
    assert torch.cuda.mem_get_info() == ((2048 - 500 - 50) * MIB, 2048 * MIB)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_reserved() == 30 * MIB
    assert kept.nbytes == 30 * MIB


def test_pytorchs_own_summary_reads_our_figures(world: World) -> None:
    kept = megabytes(30)
    text = torch.cuda.memory_summary()
    assert "PyTorch CUDA memory summary" in text
    assert "| Allocated memory      |  30720 KiB |  30720 KiB |" in text
    del kept


def test_accumulated_figures_can_be_reset(world: World) -> None:
    del_me = megabytes(3)
    del del_me
    torch.cuda.reset_accumulated_memory_stats()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == 0


def test_out_of_memory_has_the_installed_words_and_reads_back(world: World) -> None:
    kept = megabytes(1200)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        megabytes(400)
    text = str(caught.value)
    assert text.startswith(
        "CUDA out of memory. Tried to allocate 400.00 MiB. GPU 0 has a total capacity of 2.00 GiB of which "
        "348.00 MiB is free. Including non-PyTorch memory, this process has 1.66 GiB memory in use. "
        "Of the allocated memory 1.17 GiB is allocated by PyTorch, and 0 bytes is reserved by PyTorch but unallocated."
    )
    read = diagnose(f"torch.OutOfMemoryError: {text}")
    assert read.is_oom
    assert (read.requested_bytes, read.free_bytes) == (400 * MIB, 348 * MIB)
    assert torch.cuda.memory_stats()["num_ooms"] == 1
    del kept


def test_a_fraction_is_named_as_a_cap(world: World) -> None:
    torch.cuda.set_per_process_memory_fraction(0.25)
    with pytest.raises(torch.OutOfMemoryError, match=r"512\.00 MiB allowed; "):
        megabytes(600)


def test_settings_of_the_environment_are_read_when_cuda_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    with virtual_gpu(CARD):
        megabytes(1)
        assert torch.cuda.memory_stats()["max_split_size"] == 64 * MIB


def test_the_snapshot_opens_in_pytorchs_viewer(world: World, tmp_path: Path) -> None:
    torch.cuda.memory._record_memory_history()
    kept, gone = megabytes(30), megabytes(3)
    small = torch.empty(100, device="cuda")
    del gone
    path = tmp_path / "snapshot.pickle"
    torch.cuda.memory._dump_snapshot(str(path))
    snapshot = pickle.loads(path.read_bytes())
    assert [segment["segment_type"] for segment in snapshot["segments"]].count("small") == 1
    assert sum(segment["total_size"] for segment in snapshot["segments"]) == torch.cuda.memory_reserved()
    assert "30.0MiB" in _memory_viz.segsum(snapshot)
    trace = _memory_viz.trace(snapshot)
    assert f"= alloc({hex(kept.data_ptr())[2:]}" in trace or "alloc" in trace
    for page in (_memory_viz.trace_plot(snapshot), _memory_viz.segment_plot(snapshot)):
        assert "<html>" in page.lower() or "<!doctype html>" in page.lower()
    actions = [event["action"] for event in snapshot["device_traces"][0]]
    assert actions.count("alloc") == 3
    assert actions.count("free_completed") == 1
    torch.cuda.memory._record_memory_history(None)
    assert not torch.cuda.memory._snapshot()["device_traces"][0]
    assert torch.cuda.memory_snapshot()[0]["blocks"]
    assert small.numel() == 100


def test_pinned_memory_is_counted_as_pytorch_counts_it(world: World) -> None:
    pinned = torch.empty(3 * MIB, dtype=torch.uint8).pin_memory()
    stats = torch.cuda.host_memory_stats()
    assert stats["allocated_bytes.current"] == stats["active_bytes.current"] == 4 * MIB
    del pinned
    stats = torch.cuda.host_memory_stats()
    assert (stats["allocated_bytes.current"], stats["active_bytes.current"]) == (4 * MIB, 0)
