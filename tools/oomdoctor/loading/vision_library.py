"""What diffusers' Cosmos transformers take from torchvision, where the interpreter lacks that package."""

from __future__ import annotations

import types
from types import ModuleType
from typing import Any

import torch

from oomdoctor.loading import session


def _resize(picture: Any, size: Any, interpolation: Any = None, **options: Any) -> Any:
    """The nearest-neighbour resize of a mask; diffusers uses no other."""
    session.current().note("torchvision is missing, which Cosmos models need: install it for a real run.")
    return torch.nn.functional.interpolate(picture, size=tuple(size), mode="nearest")


def patch(module: ModuleType) -> None:
    """After ``import diffusers.models.transformers.transformer_cosmos``."""
    if not hasattr(module, "transforms"):
        vars(module)["transforms"] = types.SimpleNamespace(
            functional=types.SimpleNamespace(resize=_resize), InterpolationMode=types.SimpleNamespace(NEAREST="nearest")
        )


PATCHES = {"diffusers.models.transformers.transformer_cosmos": patch}
"""Module -> what to do after it is imported."""
