"""Compiled code runs as it is; the report says so."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from oomdoctor.vgpu import VirtualTensor, World  # noqa: E402


def test_a_compiled_module_runs_eagerly(world: World) -> None:
    layer = torch.nn.Linear(1024, 1024).cuda()
    layer.compile(fullgraph=True)
    assert isinstance(layer(torch.empty(8, 1024, device="cuda")), VirtualTensor)
    assert torch.compile(layer) is layer
    assert any("upper bound" in sentence for sentence in world.assumptions)


def test_a_compiled_function_runs_eagerly(world: World) -> None:
    @torch.compile(mode="reduce-overhead")
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    assert isinstance(double(torch.empty(1024, 1024, device="cuda")), VirtualTensor)
    assert any("CUDA graphs" in sentence for sentence in world.assumptions)
