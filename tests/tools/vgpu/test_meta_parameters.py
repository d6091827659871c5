"""Models that are built without memory (accelerate's empty models) take none on the simulated host either."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")


def test_an_empty_model_takes_no_host_memory(world) -> None:
    before = world.host.peak
    with accelerate.init_empty_weights():
        layers = torch.nn.ModuleList(torch.nn.Linear(8192, 8192) for _ in range(8))
    assert all(p.device.type == "meta" for p in layers.parameters())
    # Each weight exists for a moment before it is moved to the meta device; all of them together never do.
    assert world.host.peak - before < 3 * 8192 * 8192 * 4
