"""``torch.compile`` in a virtual run: nothing is compiled, the eager code runs, and its peak stands as an upper bound.

Inductor fuses element-wise work, so a compiled model holds no more than the eager one, but for two things that are
noted: autotuning takes memory while it tries kernels, and modes with CUDA graphs keep a private pool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.cuda_api import Patches

_GRAPHS = ("reduce-overhead", "max-autotune")


def patch_compile(patches: Patches) -> None:
    """Replace ``torch.compile`` and ``nn.Module.compile`` for the length of a run."""

    def compile(model: Any = None, **options: Any) -> Any:
        _note(options)
        if model is not None:
            return model

        def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
            return fn

        return decorate

    def compile_module(self: torch.nn.Module, *args: Any, **options: Any) -> None:
        _note(options)

    patches.set(torch, "compile", compile)
    patches.set(torch.nn.Module, "compile", compile_module)


def _note(options: dict[str, Any]) -> None:
    world = _world.current()
    world.assume("torch.compile compiles nothing in a virtual run: memory is that of the eager code, an upper bound")
    if options.get("mode") in _GRAPHS:
        world.assume(f"CUDA graphs (mode={options['mode']!r}) keep their own pool, which is not counted")
