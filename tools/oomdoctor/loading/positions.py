"""Position tables that models compute while they are built, millions of sines that nobody will look at."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from oomdoctor.loading import hooks, session

LARGE = 1 << 20
"""Elements from which a table is made without values."""


def patch(module: ModuleType) -> None:
    """After ``import diffusers.models.embeddings``."""
    original: Callable[..., Any] = module.get_2d_sincos_pos_embed

    def table(embed_dim: int, grid_size: Any, *args: Any, **options: Any) -> Any:
        rows, columns = (grid_size, grid_size) if isinstance(grid_size, int) else grid_size
        plain = not args and not options.get("cls_token") and options.get("output_type", "pt") == "pt"
        if plain and rows * columns * embed_dim >= LARGE:
            device = options.get("device") or "cpu"
            return session.current().tensor((rows * columns, embed_dim), torch.float64, device, "anonymous")
        return original(embed_dim, grid_size, *args, **options)

    hooks.replace(module, "get_2d_sincos_pos_embed", table)
