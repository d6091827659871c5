"""What single operations take, held against PyTorch's own requests (recorded by ``bench/oracle/kernels.py``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from oomdoctor.vgpu import VirtualCard, virtual_gpu
from oomdoctor.vgpu.rules.matmul import workspace_bytes

RECORDED = Path(__file__).parent / "recorded"
VERSION = ".".join(torch.__version__.split(".")[:2])
FILE = RECORDED / f"temporaries-{VERSION}.json"
SMALL = 32 << 10
"""Semaphores and other buffers up to here are not modelled."""
CARDS = {"75": "Tesla T4", "89": "RTX 4090", "90": "H100"}


def tensor(text: str) -> torch.Tensor:
    """A tensor from ``dtype shape`` or ``dtype shape : order of the dimensions in memory``."""
    what, _, order = text.partition(":")
    dtype, *sizes = what.split()
    shape = [int(size) for size in sizes]
    if not order:
        return torch.empty(shape, dtype=getattr(torch, dtype), device="cuda")
    places = [int(place) for place in order.split()]
    laid = torch.empty([shape[place] for place in places], dtype=getattr(torch, dtype), device="cuda")
    return laid.permute([places.index(at) for at in range(len(places))])


def peak_and_left(trace: list[int]) -> tuple[int, int]:
    """Bytes in blocks of 512 at the highest point and at the end, from sizes requested (+) and freed (-)."""
    now = peak = 0
    for size in trace:
        block = (abs(size) + 511) // 512 * 512
        now += block if size > 0 else -block
        peak = max(peak, now)
    return peak, now


def ours(world: Any, case: dict[str, Any]) -> list[int]:
    import torch.nn.functional as F

    values = {name: tensor(text) for name, text in case["inputs"].items()}
    allocator = world.gpu.allocator
    allocator.record_history(True)
    kept = eval(case["call"], {"torch": torch, "F": F, **values})
    trace = allocator.snapshot()["device_traces"][0]
    allocator.record_history(False)
    steps = {"alloc": 1, "free_completed": -1}
    sizes = [steps[event["action"]] * event["size"] for event in trace if event["action"] in steps]
    del kept
    return sizes


def differences(capability: str) -> list[str]:
    found = []
    major, minor = divmod(int(capability), 10)
    card = VirtualCard("card", CARDS[capability], 64 << 30, compute_capability=(major, minor), sm_count=128)
    with virtual_gpu(card, replay=False) as world, torch.no_grad():
        small = torch.empty(16, 16, device="cuda")
        kept = small @ small  # what cuBLAS keeps is taken with its first use
        for case in json.loads(FILE.read_text())[capability]:
            if "error" in case:
                continue  # needs a library that the stub driver does not start (cuDNN)
            name = f"{case['call']} {' '.join(case['inputs'].values())}"
            try:
                got = peak_and_left(ours(world, case))
            except RuntimeError as error:
                found.append(f"{name}: {type(error).__name__} {str(error)[:200]}")
                continue
            want = peak_and_left(case["trace"])
            allowed = want[0] // 20 if "sort" in name else SMALL  # CUB's own buffers differ from card to card
            if abs(got[0] - want[0]) > max(SMALL, allowed) or got[1] != want[1]:
                found.append(f"{name}: PyTorch {want}, here {got}")
        del kept
    return found


@pytest.mark.skipif(not FILE.exists(), reason=f"nothing recorded for torch {VERSION}")
@pytest.mark.parametrize("capability", CARDS)
def test_operations_take_what_pytorch_takes(capability: str) -> None:
    assert differences(capability) == []


@pytest.mark.parametrize(
    ("capability", "version", "config", "kib"),
    [
        ((7, 5), (2, 13), "", 8320),
        ((8, 9), (2, 6), "", 8320),
        ((9, 0), (2, 6), "", 32768),
        ((12, 0), (2, 6), "", 8320),
        ((12, 0), (2, 13), "", 32768),
        ((8, 9), (2, 13), ":16:8", 128),
        ((8, 9), (2, 13), ":4096:8", 32768),
        ((8, 9), (2, 13), "nonsense", 8320),
    ],
)
def test_workspace_of_matrix_products(
    capability: tuple[int, int], version: tuple[int, int], config: str, kib: int
) -> None:
    assert workspace_bytes(capability, version, config) == kib << 10


def test_the_first_product_on_a_stream_keeps_a_workspace() -> None:
    card = VirtualCard("card", "RTX 4090", 8 << 30, compute_capability=(8, 9))
    with virtual_gpu(card, replay=False):
        x = torch.empty(1024, 1024, device="cuda")
        before = torch.cuda.memory_allocated()
        x @ x
        assert torch.cuda.memory_allocated() - before == 8320 << 10
        x @ x
        assert torch.cuda.memory_allocated() - before == 8320 << 10
        with torch.cuda.stream(torch.cuda.Stream()):
            x @ x
        assert torch.cuda.memory_allocated() - before == 2 * (8320 << 10)
