"""Make a large card behave as a smaller one: the rest of its memory is really held. Child side, torch only."""

from __future__ import annotations

import ctypes
from typing import Any

_kept: list[Any] = []
CHUNK = 64 << 20


def hold(limit_bytes: int | None, free: int, total: int) -> int:
    """Leave this process ``limit_bytes`` of the card, context included; returns the bytes that are held.

    ``free`` and ``total``: what the driver says now, after the context was made. Memory is taken from the driver
    directly, so that torch does not count it as its own; the allocator's own limit is set as well, because the driver
    may hand out the last part of a page in another way.
    """
    if limit_bytes is None:
        return 0
    import torch

    context = _own_context(free, total)
    usable = max(0, limit_bytes - context)
    surplus = free - usable
    if surplus <= 0:
        return 0
    held = _take(surplus)
    torch.cuda.set_per_process_memory_fraction(min(1.0, max(0.01, usable / total)))
    return held


def _own_context(free: int, total: int) -> int:
    """What the context of this process took; other processes may hold memory too, then NVML would have to say."""
    try:
        import pynvml

        pynvml.nvmlInit()
        import os

        import torch

        uuid = str(torch.cuda.get_device_properties(0).uuid)
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            if uuid in str(pynvml.nvmlDeviceGetUUID(handle)):
                for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    if process.pid == os.getpid() and process.usedGpuMemory:
                        return int(process.usedGpuMemory)
    except Exception:
        pass  # NVML is not there or does not see this process (containers): the estimate below
    return min(total - free, 600 << 20)


def _take(nbytes: int) -> int:
    """Memory from the driver in the context that torch uses; in chunks, as much as there is."""
    driver = ctypes.CDLL("libcuda.so.1")
    held = 0
    while held < nbytes:
        size = min(CHUNK, nbytes - held)
        pointer = ctypes.c_uint64()
        if driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)) != 0:
            break
        _kept.append(pointer)
        held += size
    return held
