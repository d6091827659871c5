"""Limits that the kernel keeps for one run: files, memory, core dumps. Child side."""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What one run may use up. Time is the parent's business."""

    file_bytes: int = 256 << 20
    """Largest single file it may write."""
    scratch_bytes: int = 1 << 30
    """All files in its scratch folder together."""
    memory_bytes: int = 8 << 30
    """Real memory beyond what it starts with; virtual tensors take none."""
    answer_bytes: int = 64 << 20
    """All that it may say to its parent."""
    ops: int = 20_000_000
    """Operations on tensors."""

    @classmethod
    def from_dict(cls, data: dict[str, Any] | None) -> Limits:
        return cls(**(data or {}))


def apply(limits: Limits) -> None:
    """Set the kernel's limits on this process. What a platform does not have is left out."""
    try:
        import resource
    except ImportError:
        return
    _give_back_large_blocks()
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_DATA: _data_bytes() + limits.memory_bytes,
    }
    for which, amount in wanted.items():
        _, hard = resource.getrlimit(which)
        if hard != resource.RLIM_INFINITY:
            amount = min(amount, hard)
        try:
            resource.setrlimit(which, (amount, amount))
        except (OSError, ValueError):
            continue


M_MMAP_THRESHOLD = -3
"""Parameter of glibc's ``mallopt``."""


def _give_back_large_blocks() -> None:
    """Let glibc return every block of 1 MiB and more to the kernel when it is freed.

    It would raise that size up to 32 MiB by itself. Layers that a loader makes and drops at once then leave holes
    behind, each a little too small for the next one: gigabytes that were never touched but count against the limit.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)


def _data_bytes() -> int:
    """Private writable memory of this process now (Linux); 0 elsewhere."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmData"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def folder_bytes(folder: str) -> int:
    """Disk space of all files below ``folder``, links not followed."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
            except OSError:
                continue
    return total
