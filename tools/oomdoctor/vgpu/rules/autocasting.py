"""Functions that autocast casts for before C++ compares the types of their arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from oomdoctor.vgpu import autocast
from oomdoctor.vgpu.rules import function

_CONVOLUTIONS = {
    getattr(home, f"conv{kind}{n}d") for home in (torch, functional) for kind in ("", "_transpose") for n in (1, 2, 3)
}


@function(*_CONVOLUTIONS)
def convolution(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A float32 picture into half-precision weights, or the other way round: both become autocast's type."""
    if not autocast.state.enabled:
        return NotImplemented
    target = torch.get_autocast_dtype("cuda")
    cast = [autocast.cast_tensor(a, target) for a in args]
    return func(*cast, **{k: autocast.cast_tensor(v, target) for k, v in kwargs.items()})
