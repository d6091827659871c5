"""Arrays of one element: the same answers as ordinary zeros, without their memory."""

from __future__ import annotations

from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("torch")

from oomdoctor.vgpu.blank import blank, is_blank  # noqa: E402

HUGE = (81, 100_000, 100_000, 3)


def video() -> Any:
    return blank(np.float32(0), HUGE)


def test_what_pipelines_do_with_finished_pictures_takes_no_memory() -> None:
    scaled = (video() * 255).round().astype("uint8")
    assert scaled.shape == HUGE and scaled.dtype == np.uint8 and is_blank(scaled)
    batch = np.stack([video(), video()])
    assert batch.shape == (2, *HUGE) and batch.dtype == np.float32 and is_blank(batch)
    assert np.concatenate([scaled, scaled[:3]], axis=0).shape == (84, *HUGE[1:])
    assert is_blank(np.clip(video() / 2 + 0.5, 0, 1).transpose(0, 3, 1, 2))
    assert (video() > 1).dtype == bool


def test_arithmetic_keeps_the_value() -> None:
    array = blank(np.float32(0.5), (2, 3))
    assert ((array * 255).round() == np.full((2, 3), 128.0)).all()
    assert np.array_equal(array + np.arange(3), np.full((2, 3), 0.5) + np.arange(3))
    assert array.max() == 0.5 and array.sum() == 3.0


def test_bad_shapes_are_numpys_errors() -> None:
    with pytest.raises(ValueError, match="same shape"):
        np.stack([blank(0.0, (2, 3)), blank(0.0, (2, 4))])
    with pytest.raises(ValueError):
        blank(0.0, (2, 3)) + blank(0.0, (2, 4))


def test_mixed_and_in_place_work_as_ever() -> None:
    array = blank(np.float64(1), (2, 2))
    assert np.stack([array, np.zeros((2, 2))]).sum() == 4.0
    total = np.zeros((2, 2))
    total += array
    assert total.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    copy = array.copy()
    copy[0, 0] = 5
    assert copy.tolist() == [[5.0, 1.0], [1.0, 1.0]]


def test_a_tensor_without_values_gives_one(world: Any) -> None:
    import torch

    frames = torch.zeros((1 << 20, 512, 3), device="cuda", dtype=torch.float32)
    assert is_blank(frames.cpu().numpy())


def test_back_into_a_tensor_it_stays_virtual(world: Any) -> None:
    import torch

    frames = torch.zeros((1 << 20, 512, 3), device="cuda", dtype=torch.float32).cpu().numpy()
    used = world.host.by_kind["anonymous"]
    for make in (torch.from_numpy, torch.tensor, torch.as_tensor):
        tensor = make(frames)
        assert tensor.shape == frames.shape and tensor.dtype == torch.float32
        assert world.host.by_kind["anonymous"] == used + frames.nbytes
        assert (tensor * 2).permute(0, 2, 1).shape == (1 << 20, 3, 512)
        del tensor
    assert torch.from_numpy(np.ones(3)).tolist() == [1.0, 1.0, 1.0]
