"""The out-of-memory text, in the words of each torch version (2.6 on)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .caching import CachingAllocator

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
OLD_PAGE = " (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
NEW_PAGE = (
    " (https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)"
)
ACCELERATOR_ERRORS = (2, 13)
"""Seen in 2.13; 2.6 speaks the older words. In between nobody looked, and the older ones are taken."""
EXABYTE = 1 << 60
TOO_LARGE = "CUDA out of memory. Tried to allocate more than 1EB memory."


def format_size(size: int) -> str:
    """A size as PyTorch prints it: bytes, KiB, MiB or GiB with two decimals."""
    if size <= 1024:
        return f"{size} bytes"
    if size <= MIB:
        return f"{size / KIB:.2f} KiB"
    if size <= GIB:
        return f"{size / MIB:.2f} MiB"
    return f"{size / GIB:.2f} GiB"


@dataclass(frozen=True)
class Failure:
    """The state of the card at the moment a request could not be served. All sizes are bytes."""

    requested: int
    """What the driver was asked for, after rounding to a segment."""
    block: int
    """What the program asked for, rounded to a block."""
    total: int
    free: int
    allocated: int
    reserved: int
    private: int
    """Free blocks held by private pools; PyTorch counts them as allocated."""
    device: int
    allowed: int | None = None
    """The cap of ``set_per_process_memory_fraction``; None: no cap was set."""
    in_use: int | None = None
    """What the driver says this process holds; None: it does not say (Windows, WSL)."""
    others: int = 0
    """What other processes hold."""
    other_pid: int = 1


def text_of(failure: Failure, torch_version: tuple[int, int]) -> str:
    """The message of ``torch.OutOfMemoryError`` for a failure."""
    f = failure
    parts = [
        f"CUDA out of memory. Tried to allocate {format_size(f.requested)}. ",
        f"GPU {f.device} has a total capacity of {format_size(f.total)} of which {format_size(f.free)} is free. ",
    ]
    if f.in_use is not None:
        if f.others:
            parts.append(f"Process {f.other_pid} has {format_size(f.others)} memory in use. ")
        parts.append(f"Including non-PyTorch memory, this process has {format_size(f.in_use)} memory in use. ")
    if f.allowed is not None:
        parts.append(f"{format_size(f.allowed)} allowed; ")
    parts.append(f"Of the allocated memory {format_size(f.allocated + f.private)} is allocated by PyTorch, ")
    if f.private:
        parts.append(f"with {format_size(f.private)} allocated in private pools (e.g., CUDA Graphs), ")
    parts.append(f"and {format_size(f.reserved - f.allocated - f.private)} is reserved by PyTorch but unallocated. ")
    variable = "PYTORCH_ALLOC_CONF" if torch_version == (2, 10) else "PYTORCH_CUDA_ALLOC_CONF"
    page = OLD_PAGE if torch_version <= (2, 10) else NEW_PAGE
    parts.append(
        f"If reserved but unallocated memory is large try setting {variable}=expandable_segments:True "
        f"to avoid fragmentation.  See documentation for Memory Management {page}"
    )
    return "".join(parts)


def rejection_of(requested: int) -> str:
    """The message of ``throw_on_cudamalloc_oom``, which does not wait for the driver to refuse."""
    return (
        "CUDA out of memory. Allocation was preemptively rejected because it would exceed "
        f"per_process_memory_fraction limit. Requested size: {format_size(requested)}"
    )


def driver_text(torch_version: tuple[int, int]) -> str:
    """The message of a CUDA call that found no memory, without the caching allocator in between."""
    if torch_version >= ACCELERATOR_ERRORS:
        return (
            "CUDA error: out of memory\n"
            "Search for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/cuda/cuda-runtime-api/"
            "group__CUDART__TYPES.html for more information.\n"
            "For more detailed error information, run with CUDA_LOG_FILE=stderr\n"
        )
    return (
        "CUDA error: out of memory\n"
        "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
        "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
        "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
    )


class OutOfCardMemory(Exception):
    """The card has no room for a request. ``text`` is what PyTorch would say; sizes are bytes.

    ``from_driver``: a CUDA call failed, not the caching allocator, so PyTorch raises another class of exception.
    """

    def __init__(self, failure: Failure, text: str, from_driver: bool = False) -> None:
        super().__init__(text)
        self.failure = failure
        self.text = text
        self.from_driver = from_driver
        self.requested = failure.requested
        self.total = failure.total
        self.free = failure.free
        self.allocated = failure.allocated
        self.reserved = failure.reserved
        self.allowed = failure.allowed
        self.device = failure.device


def driver_failure_of(allocator: CachingAllocator, size: int) -> OutOfCardMemory:
    """The error of a CUDA call for ``size`` bytes."""
    error = failure_of(allocator, size, size, driver_text(allocator.torch_version))
    return OutOfCardMemory(error.failure, error.text, from_driver=True)


def failure_of(allocator: CachingAllocator, chunk: int, size: int, text: str | None) -> OutOfCardMemory:
    """The error for a request of ``size`` bytes that wanted ``chunk`` from the driver; ``text`` instead of the usual."""
    failure = Failure(
        requested=chunk,
        block=size,
        total=allocator.total_bytes,
        free=allocator.driver_free,
        allocated=allocator.allocated,
        reserved=allocator.reserved,
        private=allocator.captures.idle_bytes,
        device=allocator.device_index,
        allowed=allocator.allowed,
        in_use=allocator.outside_bytes + allocator.reserved if allocator.process_info else None,
        others=allocator.other_process_bytes,
        other_pid=allocator.other_process_pid,
    )
    return OutOfCardMemory(failure, text or text_of(failure, allocator.torch_version))
