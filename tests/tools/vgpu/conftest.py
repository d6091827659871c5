"""A virtual card for the length of one test, in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")

from oomdoctor.vgpu import VirtualCard, World, virtual_gpu  # noqa: E402

GIB = 1 << 30


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """One 12 GiB card of the Ampere generation and 64 GiB of RAM; the allocator's settings are the default ones."""
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING"):
        monkeypatch.delenv(name, raising=False)
    card = VirtualCard("rtx-3060-12gb", "NVIDIA GeForce RTX 3060", total_bytes=12 * GIB)
    with virtual_gpu(card, ram_bytes=64 * GIB) as world:
        yield world
