"""What the decoder gave out tells the size of the picture, also where the script leaves it to the pipeline."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oomdoctor.vgpu.tracker import Tracker


def shaped(*sizes: int) -> torch.Tensor:
    return torch.empty(sizes, device="meta")


@pytest.mark.parametrize(
    ("results", "made"),
    [
        ([shaped(1, 3, 1024, 768)], {"height": 1024, "width": 768}),
        ([shaped(1, 3, 9, 480, 720), shaped(1, 3, 8, 480, 720)], {"height": 480, "width": 720, "num_frames": 17}),
        ([(shaped(1, 3, 9, 480, 720), {"cache": None})], {"height": 480, "width": 720, "num_frames": 9}),
        ([shaped(1, 12, 1, 352, 640)], {"height": 704, "width": 1280, "num_frames": 1}),
        ([None], {}),
        ([shaped(4, 77)], {}),
    ],
)
def test_sizes_of_pictures_and_videos(results: list[Any], made: dict[str, int]) -> None:
    tracker = Tracker(recording=True)
    for result in results:
        tracker.decoded(result)
    assert tracker.made == made
