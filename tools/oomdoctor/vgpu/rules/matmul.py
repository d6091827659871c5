"""What matrix products keep on the card: the workspace of cuBLAS, one per stream, from the first product on.

PyTorch takes it through the caching allocator and never gives it back (aten/src/ATen/cuda/CublasHandlePool.cpp), so it
counts as allocated. Read off by ``bench/oracle`` for cards from 7.5 to 12.0.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.rules import DECLINE, Call, rule

aten = torch.ops.aten
KIB, MIB = 1 << 10, 1 << 20
USUAL_BYTES = 2 * 4096 * KIB + 8 * 16 * KIB
HOPPER_BYTES = 32 * MIB
UNIFIED_SINCE = (2, 7)
"""Before, cuBLASLt (products with a bias) takes a workspace of its own for every call; seen in 2.6, not in 2.13."""
LT_BYTES = MIB


def workspace_bytes(capability: tuple[int, int], torch_version: tuple[int, int], config: str = "") -> int:
    """Bytes of one workspace; ``config`` is the environment's ``CUBLAS_WORKSPACE_CONFIG``, pairs of KiB and count."""
    numbers = [int(part) for part in config.split(":") if part.isdigit()]
    if numbers and len(numbers) % 2 == 0:
        return sum(size * KIB * count for size, count in zip(numbers[::2], numbers[1::2], strict=True))
    large = capability >= (9, 0) if torch_version >= UNIFIED_SINCE else capability == (9, 0)
    return HOPPER_BYTES if large else USUAL_BYTES


@rule(
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten._scaled_mm.default,
)
def product(call: Call) -> Any:
    """Nothing of its own but the workspace, with the first product on a stream."""
    if call.device.type == "cuda":
        gpu = _world.current().gpus[call.device.index]
        version = gpu.allocator.torch_version
        if gpu.stream not in gpu.matmul_workspaces:
            size = workspace_bytes(gpu.card.compute_capability, version, os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
            gpu.matmul_workspaces[gpu.stream] = gpu.take(size, "workspace")
        if version < UNIFIED_SINCE and call.func in (aten.addmm.default, aten._scaled_mm.default):
            gpu.scratch(LT_BYTES)
    return DECLINE
