"""Repeated denoiser calls are answered from two that ran, and only when nothing has changed."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from oomdoctor.vgpu import World  # noqa: E402


class Masked(torch.nn.Module):
    """Cuts its sequence by a mask, as models with a text stream do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1024, 1024, bias=False)
        self.calls = 0

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layer(x[:, mask[0].bool()]).mean(1)


class Denoiser(torch.nn.Module):
    """Stands where a transformer stands; ``extra`` makes a call take more memory that stays."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1024, 1024, bias=False)
        self.kept: list[torch.Tensor] = []
        self.calls = 0

    def forward(self, x: torch.Tensor, t: torch.Tensor, keep: bool = False) -> torch.Tensor:
        self.calls += 1
        y = self.layer(x) * 2
        if keep:
            self.kept.append(y.clone())
        return y


@pytest.fixture
def denoiser(world: World) -> Denoiser:
    from oomdoctor.vgpu.replay import Replays

    world.replays = Replays(world)
    model = Denoiser().cuda().eval()
    world.tracker.name("transformer", model)
    return model


def steps(model: Denoiser, n: int, **options: Any) -> None:
    timesteps = torch.arange(n, device="cuda").float()
    x = torch.empty(64, 1024, device="cuda")
    with torch.no_grad():
        for i in range(n):
            x = model(x, timesteps[i], **options)


def test_the_rest_is_replayed_once_two_calls_were_equal(world: World, denoiser: Denoiser) -> None:
    steps(denoiser, 20)
    assert denoiser.calls == world.replays.ran
    assert 2 <= denoiser.calls <= 4
    assert world.replays.ran + world.replays.replayed == 20


def test_replayed_time_passes(world: World, denoiser: Denoiser) -> None:
    steps(denoiser, 4)
    world.gpu.clock.synchronize()
    before = world.gpu.clock.now
    steps(denoiser, 1)
    one = world.gpu.clock.now - before
    before = world.gpu.clock.now
    steps(denoiser, 10)
    assert world.gpu.clock.now - before == pytest.approx(10 * one, rel=0.2)


def test_a_call_that_leaves_memory_behind_runs_each_time(world: World, denoiser: Denoiser) -> None:
    steps(denoiser, 6, keep=True)
    assert denoiser.calls == 6
    assert len(denoiser.kept) == 6


def test_a_state_between_those_that_were_seen_is_replayed(world: World, denoiser: Denoiser) -> None:
    """Blocks keep small ends: from step to step the same tensors weigh a little more or less."""
    x, t = torch.empty(64, 1024, device="cuda"), torch.zeros((), device="cuda")
    ran = []
    with torch.no_grad():
        for size in (0, 0, 9000, 3000, 6000, 9000, 12000, 11000):
            beside = torch.empty(size, dtype=torch.uint8, device="cuda")
            before = denoiser.calls
            denoiser(x, t)
            ran.append(denoiser.calls > before)
            del beside
    assert ran[-6:] == [True, False, False, False, True, False]


def test_guidance_with_masks_of_its_own_is_replayed(world: World) -> None:
    from oomdoctor.vgpu.replay import Replays

    world.replays = Replays(world)
    model = Masked().cuda().eval()
    world.tracker.name("transformer", model)
    x = torch.empty(1, 256, 1024, device="cuda")
    masks = [(torch.arange(256) < n)[None].to("cuda", torch.bfloat16) for n in (40, 200)]
    peaks = []
    with torch.no_grad():
        for step in range(20):
            model(x, masks[step % 2])
            peaks.append(world.gpu.allocator.peak_allocated)
    assert model.calls <= 6
    assert peaks[-1] == peaks[3]


def test_less_than_was_ever_seen_runs_again(world: World, denoiser: Denoiser) -> None:
    x, t = torch.empty(64, 1024, device="cuda"), torch.zeros((), device="cuda")
    beside = torch.empty(1 << 20, device="cuda")
    with torch.no_grad():
        for _ in range(4):
            denoiser(x, t)
        ran = denoiser.calls
        del beside
        denoiser(x, t)
    assert ran < 4
    assert denoiser.calls == ran + 1


def test_another_shape_runs_again(world: World, denoiser: Denoiser) -> None:
    steps(denoiser, 5)
    ran = denoiser.calls
    with torch.no_grad():
        denoiser(torch.empty(128, 1024, device="cuda"), torch.zeros((), device="cuda"))
    assert denoiser.calls == ran + 1


def test_training_is_never_replayed(world: World, denoiser: Denoiser) -> None:
    x = torch.empty(64, 1024, device="cuda")
    for _ in range(5):
        denoiser(x, torch.zeros((), device="cuda"))
    assert denoiser.calls == 5
