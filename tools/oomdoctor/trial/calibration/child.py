"""The measuring program: runs in the user's interpreter on the real card. Child side: torch and the standard library.

One JSON object on the file descriptor that the command line names. Every figure is the median of several runs after a
warm-up; times are taken with CUDA events around the work alone.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any

RUNS = 5
COPY_BYTES = 256 << 20
MATMUL = 4096
CONVOLUTIONS = (
    # (dims, channels in, channels out, edge): shapes of the last levels of image and video decoders
    (2, 128, 128, 1024),
    (2, 256, 256, 512),
    (2, 512, 512, 256),
    (3, 96, 96, 256),
)


def main(answers: int) -> None:
    import torch

    if not torch.cuda.is_available():
        os.write(answers, json.dumps({"missing": "cuda"}).encode() + b"\n")
        return
    free_before, total = _driver_memory(torch)
    torch.cuda.init()
    torch.empty(1, device="cuda")
    torch.cuda.synchronize()
    free_after, _ = torch.cuda.mem_get_info()
    torch.cuda.empty_cache()
    measured: dict[str, Any] = {
        "label": torch.cuda.get_device_name(),
        "total_bytes": total,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "capability": list(torch.cuda.get_device_capability()),
        **_copies(torch),
        "matmul_flops": _matmuls(torch),
        "attention_flops": _attention(torch),
        "convolution_share": _convolutions(torch),
        "matmul_workspace_bytes": _matmul_workspace(torch),
    }
    # With the kernels of everything above loaded, the context has the size that a pipeline's has.
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    left, _ = torch.cuda.mem_get_info()
    measured["context_bytes"] = _context(torch, free_before, left, free_after)
    os.write(answers, json.dumps(measured).encode() + b"\n")


def _driver_memory(torch: Any) -> tuple[int, int]:
    """Free and total before this process has a context, from NVML; (0, total) where it is not there."""
    try:
        import pynvml

        pynvml.nvmlInit()
        info = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0))
        return int(info.free), int(info.total)
    except Exception:
        return 0, int(torch.cuda.mem_get_info()[1])


def _context(torch: Any, free_before: int, left: int, free_after: int) -> int | None:
    if not free_before:
        return None
    return max(0, free_before - left - int(torch.cuda.memory_reserved()))


def _seconds(torch: Any, work: Callable[[], Any]) -> float:
    work()
    torch.cuda.synchronize()
    taken = []
    for _ in range(RUNS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end) / 1000)
    return float(max(statistics.median(taken), 1e-9))


def _copies(torch: Any) -> dict[str, float]:
    """Bytes per second over PCIe: to the card page-locked and pageable, and back."""
    card = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    pageable = torch.empty(COPY_BYTES, dtype=torch.uint8)
    pinned = pageable.pin_memory()
    return {
        "h2d_pinned_bytes_per_second": COPY_BYTES / _seconds(torch, lambda: card.copy_(pinned, non_blocking=True)),
        "h2d_pageable_bytes_per_second": COPY_BYTES / _seconds(torch, lambda: card.copy_(pageable)),
        "d2h_pinned_bytes_per_second": COPY_BYTES / _seconds(torch, lambda: pinned.copy_(card, non_blocking=True)),
    }


def _types(torch: Any) -> list[Any]:
    major = torch.cuda.get_device_capability()[0]
    return [torch.float32, torch.float16, *([torch.bfloat16] if major >= 8 else [])]


def _matmuls(torch: Any) -> dict[str, float]:
    """FLOP/s of square matrix products by type."""
    found = {}
    for dtype in _types(torch):
        a = torch.randn(MATMUL, MATMUL, device="cuda", dtype=dtype)
        seconds = _seconds(torch, functools.partial(torch.matmul, a, a))
        found[str(dtype).removeprefix("torch.")] = 2 * MATMUL**3 / seconds
    return found


def _attention(torch: Any) -> float:
    """FLOP/s of attention over 4096 tokens, 24 heads of 128, as a picture of a megapixel has."""
    dtype = torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
    q = torch.randn(1, 24, 4096, 128, device="cuda", dtype=dtype)
    seconds = _seconds(torch, lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    return 4.0 * 24 * 4096**2 * 128 / seconds


def _convolutions(torch: Any) -> dict[str, float]:
    """What convolutions hold while they run, as a share of input + output, by type: the median over shapes."""
    shares: dict[str, float] = {}
    for dtype in _types(torch):
        found = []
        for dims, channels_in, channels_out, edge in CONVOLUTIONS:
            shape = (1, channels_in, *([3] if dims == 3 else []), edge, edge)
            layer = getattr(torch.nn, f"Conv{dims}d")(channels_in, channels_out, 3, padding=1)
            layer = layer.to(device="cuda", dtype=dtype)
            x = torch.randn(shape, device="cuda", dtype=dtype)
            with torch.no_grad():
                layer(x)
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                y = layer(x)
                torch.cuda.synchronize()
            size_in, size_out = x.numel() * x.element_size(), y.numel() * y.element_size()
            extra = torch.cuda.max_memory_allocated() - before - size_out
            found.append(max(0, extra) / (size_in + size_out))
            del x, y, layer
        shares[str(dtype).removeprefix("torch.")] = statistics.median(found)
    return shares


def _matmul_workspace(torch: Any) -> int:
    """What the first matrix product leaves allocated beyond its result: the BLAS library's workspace."""
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()
    a = torch.randn(1024, 1024, device="cuda")
    before = torch.cuda.memory_allocated()
    b = a @ a
    torch.cuda.synchronize()
    return max(0, int(torch.cuda.memory_allocated() - before - b.numel() * b.element_size()))


if __name__ == "__main__":
    main(int(sys.argv[1]))
