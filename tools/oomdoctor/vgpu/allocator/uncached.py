"""``PYTORCH_NO_CUDA_MEMORY_CACHING``: every request goes to the driver and every free back to it.

PyTorch then keeps no statistics (they stay zero, as ``bench/oracle`` shows for torch 2.6 and 2.13), and what fails is the
CUDA call itself, with another exception than ``torch.OutOfMemoryError``. How the driver places single allocations is not
known: they are counted in its alignment of 512 bytes, and the time that each call waits for the card is not counted.
"""

from __future__ import annotations

from .blocks import Block
from .caching import CachingAllocator
from .messages import OutOfCardMemory, driver_failure_of

VARIABLE = "PYTORCH_NO_CUDA_MEMORY_CACHING"
ALIGNMENT = 512


class UncachedAllocator(CachingAllocator):
    """The card without a cache. ``allocated`` and ``reserved`` are what is held; ``stats`` stays empty."""

    held = 0
    peak_held = 0

    def malloc(self, nbytes: int, stream: int = 0) -> Block:
        """Serve a request. Raises :class:`OutOfCardMemory` with the driver's words when the card cannot."""
        if nbytes <= 0:
            return Block(0, 0, self.small, stream)
        size = (nbytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        if size > self.driver_free:
            raise self._driver_failure(size)
        block = Block(self.reserve_addresses(size), size, self.large, stream)
        block.allocated = True
        block.requested = nbytes
        self.held += size
        self.reserved = self.held
        self.peak_held = max(self.peak_held, self.held)
        return block

    def _driver_failure(self, size: int) -> OutOfCardMemory:
        return driver_failure_of(self, size)

    def free(self, block: Block) -> None:
        """Give a block back to the driver, whoever still uses it: freeing waits for the card."""
        if not block.allocated:
            if block.size:
                raise ValueError(f"double free of {block!r}")
            return
        block.allocated = False
        self.held -= block.size
        self.reserved = self.held

    def record_stream(self, block: Block, stream: int) -> None:
        """Nothing to remember: nothing is used again."""

    def empty_cache(self) -> None:
        """There is none."""

    def reset_peak_stats(self) -> None:
        self.peak_held = self.held

    @property
    def allocated(self) -> int:
        return self.held

    @property
    def peak_allocated(self) -> int:
        return self.peak_held

    @property
    def peak_reserved(self) -> int:
        return self.peak_held
