"""``torch.device(0)``: a number alone means the accelerator, which builds of torch without CUDA have none of."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu.rules import function


@function(torch.device)
def numbered(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Device maps name their cards so."""
    number = args[0] if len(args) == 1 else None
    if type(number) is not int or kwargs:
        return NotImplemented
    return torch.device("cuda", number)
