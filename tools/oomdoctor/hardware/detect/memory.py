"""How much RAM a script may really use: the machine's, bounded by the container's, with what is known of pinning.

Which figure to use: ``available_bytes`` for planning, ``limit_bytes`` to explain why it is less than the machine has.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import psutil

from oomdoctor.hardware.detect.cgroup import memory_limits
from oomdoctor.hardware.detect.system import System
from oomdoctor.units import MIB, human
from oomdoctor.values.hardware import Ram

WSL_PINNED_BYTES = 500 * MIB
"""Least amount above which pinning was reported to fail in WSL 2 (microsoft/WSL#14078); others could pin more."""
WINDOWS_PINNED_SHARE = 0.5
"""Windows lets one process page-lock about half of the RAM for a GPU."""


class Machine(NamedTuple):
    """The whole machine's memory, in bytes."""

    total: int
    available: int
    swap: int


class Meter(Protocol):
    def __call__(self) -> Machine: ...


def machine_memory() -> Machine:
    """The door to psutil. ``available`` is what can be had without swapping, not what is free."""
    memory = psutil.virtual_memory()
    try:
        swap = psutil.swap_memory().total
    except (OSError, RuntimeError):  # /proc/vmstat hidden, or Windows without performance counters
        swap = 0
    return Machine(memory.total, memory.available, swap)


def read_ram(system: System, meter: Meter = machine_memory) -> tuple[Ram, tuple[str, ...]]:
    """RAM and notes about what bounds it."""
    machine = meter()
    notes: list[str] = []
    limits = [limit for limit in memory_limits(system) if limit.limit_bytes < machine.total]
    available = machine.available
    if limits:
        available = min(available, limits[0].room_bytes)
        least = human(min(found.limit_bytes for found in limits))
        notes.append(f"A container or slice limits RAM to {least}; the machine has {human(machine.total)}.")
    limit = min((found.limit_bytes for found in limits), default=None)
    pinned, why = _pinned_cap(system, machine, limit)
    if why:
        notes.append(why)
    ram = Ram(
        total_bytes=machine.total,
        available_bytes=available,
        limit_bytes=limit,
        swap_bytes=machine.swap,
        pinned_cap_bytes=pinned,
    )
    return ram, tuple(notes)


def _pinned_cap(system: System, machine: Machine, limit: int | None) -> tuple[int | None, str | None]:
    """The most that can be page-locked, where a cap is known, and why.

    In a container page-locked memory is charged to the container like any other, so its limit is the cap.

    RLIMIT_MEMLOCK is no such cap: the driver of an NVIDIA or AMD card locks pages itself, whatever ``ulimit -l`` says,
    so gigabytes can be pinned under the usual limit of 8 MiB.
    """
    if system.wsl:
        return min(WSL_PINNED_BYTES, limit or WSL_PINNED_BYTES), (
            f"WSL: pinned memory may fail above {human(WSL_PINNED_BYTES)} (reports differ); "
            "offloading with a stream needs it, so it is planned with that much only."
        )
    if system.platform == "win32":
        return int(machine.total * WINDOWS_PINNED_SHARE), "Windows page-locks about half of the RAM at most."
    return limit, None
