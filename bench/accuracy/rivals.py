"""What others' estimates say for a pipeline that is wholly on the card: weights plus a headroom. Their arithmetic, ours
in wording; batch, height, width come from the row's script."""

from __future__ import annotations

import re
from collections.abc import Callable

MIB, GIB = 1 << 20, 1 << 30


def _number(source: str, name: str, default: int) -> int:
    found = re.search(rf"{name}=(\d+)", source)
    return int(found[1]) if found else default


def _pixels(source: str) -> int:
    batch = _number(source, "num_images_per_prompt", 1)
    return batch * _number(source, "height", 1024) * _number(source, "width", 1024)


def _comfy(weights: int, source: str) -> float:
    """Denoise area with the Flux factor against decoding the latents, whichever is larger; 2 bytes per element."""
    area = _pixels(source) / 64
    denoise = 2 * area * 2 * 0.01 * 3.1 * MIB
    decode = 2178 * area * 64 * 2
    return weights + max(denoise, decode)


def _unsloth(weights: int, source: str) -> float:
    return weights + max(1024, 8192 * max(0.25, _pixels(source) / 1024**2)) * MIB


RIVALS: dict[str, Callable[[int, str], float]] = {
    "weights only": lambda weights, source: weights,
    "weights + 3 GB": lambda weights, source: weights + 3e9,
    "weights + area factors (ComfyUI)": _comfy,
    "weights + 8 GiB per megapixel (Unsloth)": _unsloth,
}
