"""``torch.compile`` compiles nothing in a virtual run: the eager peak stands as an upper bound, and the report says so."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.loading import session

WITH_GRAPHS = ("reduce-overhead", "max-autotune")
"""Modes that record CUDA graphs."""


def _note(mode: Any) -> None:
    session.current().note(
        "torch.compile is not carried out in a virtual run: memory is that of the uncompiled model, an upper bound."
    )
    if mode in WITH_GRAPHS:
        session.current().note(
            f"mode={mode!r} records CUDA graphs, which keep a memory pool of their own: not counted."
        )


def _compile(model: Any = None, *, mode: Any = None, **options: Any) -> Any:
    """Stands in for ``torch.compile``, as a function and as a decorator."""
    _note(mode)
    return _compiled(model) if model is not None else _compiled


def _compiled(model: Any) -> Any:
    """The same model; a function that is another one when compiled says which."""
    return getattr(model, "__compiled__", model)


def _compile_in_place(self: Any, *args: Any, mode: Any = None, **options: Any) -> None:
    """Stands in for ``nn.Module.compile``, which ``compile_repeated_blocks`` calls on each block."""
    _note(mode)


def patch_torch() -> None:
    """From now on in this process."""
    torch.compile = _compile
    torch.nn.Module.compile = _compile_in_place
