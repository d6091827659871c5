"""A number names a card, whatever build of torch runs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from oomdoctor.vgpu import World  # noqa: E402


def test_a_number_is_a_card_everywhere(world: World) -> None:
    assert torch.device(0) == torch.device("cuda", 0)
    assert torch.ones(2).to(0).device == torch.device("cuda", 0)
    assert torch.ones(2, device=0).is_cuda
    assert torch.nn.Linear(2, 2).to(0).weight.is_cuda
    assert torch.nn.Linear(2, 2).to(device=0, dtype=torch.float16).weight.dtype is torch.float16
    assert torch.nn.Linear(2, 2).cuda(0).weight.device.index == 0


def test_devices_are_still_of_their_type(world: World) -> None:
    cpu = torch.device("cpu")
    assert isinstance(cpu, torch.device) and not isinstance("cpu", torch.device)
    assert type(cpu) == torch.device  # noqa: E721  (the way some libraries ask)
    assert isinstance(cpu, torch.device | None) and {torch.device: 1}[type(cpu)] == 1
    with torch.device("cuda"):
        assert torch.ones(1).is_cuda
    with pytest.raises(RuntimeError, match="Expected one of"):
        torch.device("card")


def test_the_type_is_back_afterwards() -> None:
    assert torch.device is type(torch.device("cpu"))
