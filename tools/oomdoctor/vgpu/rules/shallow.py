"""``x.data = y`` between inference tensors: C++ asks whether their kinds agree by an operator of its own."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu.rules import Call, rule


@rule(torch.ops.aten._has_compatible_shallow_copy_type.default)
def same_kind(call: Call) -> Any:
    """All virtual tensors are of one kind, whatever device they pretend to be on."""
    return True
