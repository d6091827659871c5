"""What a Qwen-VL processor makes of pictures: how many patches, hence how many tokens. No picture is read."""

from __future__ import annotations

import math
from typing import Any

import torch

from oomdoctor.loading import session

MIN_PIXELS, MAX_PIXELS = 56 * 56, 28 * 28 * 1280
MERGE, CHANNELS, FRAMES = 2, 3, 2


def grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """(rows, columns) of patches after the processor has resized a picture to whole merged patches."""
    unit = patch * MERGE
    rows, columns = max(unit, round(height / unit) * unit), max(unit, round(width / unit) * unit)
    if rows * columns > MAX_PIXELS:
        scale = math.sqrt(height * width / MAX_PIXELS)
        rows = max(unit, math.floor(height / scale / unit) * unit)
        columns = max(unit, math.floor(width / scale / unit) * unit)
    elif rows * columns < MIN_PIXELS:
        scale = math.sqrt(MIN_PIXELS / (height * width))
        rows, columns = math.ceil(height * scale / unit) * unit, math.ceil(width * scale / unit) * unit
    return rows // patch, columns // patch


def size(picture: Any) -> tuple[int, int]:
    """(height, width) of a PIL image, an array or a tensor."""
    if hasattr(picture, "height") and hasattr(picture, "width"):
        return int(picture.height), int(picture.width)
    shape = tuple(picture.shape)
    return (shape[-2], shape[-1]) if shape[0] in (1, 3, 4) or len(shape) == 4 else (shape[0], shape[1])


def pictures(images: Any) -> list[Any]:
    """The pictures of a processor's ``images`` argument, in one list."""
    if images is None:
        return []
    if isinstance(images, (list, tuple)):
        return [p for item in images for p in pictures(item)]
    return [images[i] for i in range(images.shape[0])] if getattr(images, "ndim", 3) == 4 else [images]


def encode(images: Any, patch: int) -> tuple[dict[str, Any], list[int]]:
    """(``pixel_values`` and ``image_grid_thw``, tokens per picture)."""
    grids = [grid(*size(p), patch) for p in pictures(images)]
    patches = sum(rows * columns for rows, columns in grids)
    values = session.current().tensor((patches, CHANNELS * FRAMES * patch * patch), torch.float32, host="anonymous")
    thw = torch.tensor([[1, rows, columns] for rows, columns in grids], dtype=torch.long)
    return {"pixel_values": values, "image_grid_thw": thw}, [r * c // MERGE**2 for r, c in grids]
