"""``torch.Generator`` for a virtual card: a CPU generator that says it is on the card."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu import world as _world


class VirtualGenerator(torch.Generator):
    """Stands in for ``torch.Generator`` while a virtual run lasts."""

    _virtual_device: torch.device

    def __new__(cls, device: Any = "cpu") -> Any:
        generator = super().__new__(cls, "cpu")
        generator._virtual_device = _world.normal_device(device)
        return generator

    @property
    def device(self) -> torch.device:
        return self._virtual_device
