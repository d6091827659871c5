"""A full card, in the exceptions that PyTorch raises."""

from __future__ import annotations

import torch

from oomdoctor.vgpu.allocator import OutOfCardMemory

_MARK = "_virtual_card_is_full"


def as_torch(error: OutOfCardMemory) -> RuntimeError:
    """``torch.OutOfMemoryError``; without the caching allocator, the error of a CUDA call in the installed version's class."""
    if not error.from_driver:
        return torch.OutOfMemoryError(error.text)
    kind = getattr(torch, "AcceleratorError", RuntimeError)
    refused: RuntimeError = kind(error.text)
    setattr(refused, _MARK, True)
    return refused


def card_is_full(failure: BaseException) -> bool:
    """Whether an exception of a virtual run says that the card has no memory left."""
    return isinstance(failure, torch.OutOfMemoryError) or hasattr(failure, _MARK)
