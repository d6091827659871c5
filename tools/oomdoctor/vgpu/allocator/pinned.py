"""The caching allocator of pinned host memory (ATen/core/CachingHostAllocator.h).

Requests are rounded up to a power of two, blocks are kept on one free list per power of two, newest first, and are
never split. What is cached stays pinned until ``empty_cache``.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .settings import Settings
from .stats import Counter
from .streams import StreamClock

FILLS_FROM = (2, 6)


class PinnedBlock:
    """A pinned range; ``size`` is what is really pinned."""

    __slots__ = ("__weakref__", "allocated", "events", "requested", "size", "uses")

    def __init__(self, size: int) -> None:
        self.size = size
        self.requested = 0
        self.allocated = True
        self.uses: set[int] = set()
        self.events = 0


class OutOfPinnedMemory(Exception):
    """The host has no room for a pinned request; sizes are bytes. PyTorch only says ``CUDA error: out of memory``."""

    def __init__(self, requested: int, pinned: int, limit: int) -> None:
        self.text = "CUDA error: out of memory"
        super().__init__(self.text)
        self.requested = requested
        self.pinned = pinned
        self.limit = limit


class PinnedAllocator:
    """Pinned memory of one process. ``limit``: what may be pinned at most, None for no limit."""

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        streams: StreamClock | None = None,
        torch_version: tuple[int, int] = (2, 13),
        limit: int | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.streams = streams
        self.torch_version = torch_version
        self.limit = limit
        self.requests = Counter()
        self.active = Counter()
        self.blocks = Counter()
        self.bytes = Counter()
        self._free: dict[int, list[PinnedBlock]] = {}
        self._events: deque[tuple[Any, PinnedBlock]] = deque()

    @property
    def pinned(self) -> int:
        """Bytes that are pinned now, cached ones included."""
        return self.bytes.current

    @property
    def peak_pinned(self) -> int:
        return self.bytes.peak

    def rounded(self, nbytes: int) -> int:
        """What a request of ``nbytes`` really pins."""
        if nbytes <= self.settings.pinned_max_round_threshold and nbytes <= self.settings.pinned_max_cached_size:
            return 1 << (nbytes - 1).bit_length()
        return nbytes

    def malloc(self, nbytes: int) -> PinnedBlock:
        """Serve a request; raises :class:`OutOfPinnedMemory` above the limit."""
        if nbytes <= 0:
            return PinnedBlock(0)
        if self._events:
            self.process_events()
        size = self.rounded(nbytes)
        cached = self._free.get((size - 1).bit_length())
        if cached:
            block = cached.pop()
            block.allocated = True
        else:
            if self.limit is not None and self.bytes.current + size > self.limit:
                raise OutOfPinnedMemory(size, self.bytes.current, self.limit)
            block = PinnedBlock(size)
            self.blocks.add(1)
            self.bytes.add(size)
        block.requested = nbytes
        self.requests.add(1)
        self.active.add(size)
        return block

    def free(self, block: PinnedBlock) -> None:
        """Give a block back; it waits for the streams recorded on it."""
        if not block.size or not block.allocated:
            return
        block.allocated = False
        if not block.uses:
            self._cache(block)
            return
        for stream in sorted(block.uses):
            block.events += 1
            self._events.appendleft((self.streams.record(stream) if self.streams is not None else None, block))
        block.uses = set()

    def record_stream(self, block: PinnedBlock, stream: int) -> None:
        """Note that ``stream`` copies from or to the block (every non-blocking copy does this)."""
        if block.size:
            block.uses.add(stream)

    def process_events(self) -> None:
        """Take back the blocks whose events are over, oldest first, up to the first that is not."""
        while self._events:
            token, block = self._events[-1]
            if self.streams is not None and not self.streams.done(token):
                return
            self._events.pop()
            block.events -= 1
            if block.events == 0:
                self._cache(block)

    def _cache(self, block: PinnedBlock) -> None:
        self.requests.remove(1)
        self.active.remove(block.size)
        if block.size > self.settings.pinned_max_cached_size:
            self._unpin(block)
        else:
            self._free.setdefault((block.size - 1).bit_length(), []).append(block)

    def _unpin(self, block: PinnedBlock) -> None:
        self.blocks.remove(1)
        self.bytes.remove(block.size)

    def empty_cache(self) -> None:
        """Unpin what is cached."""
        self.process_events()
        for cached in self._free.values():
            for block in cached:
                self._unpin(block)
            cached.clear()

    def reset_peak_stats(self) -> None:
        for counter in (self.requests, self.active, self.blocks, self.bytes):
            counter.reset_peak()

    def reset_accumulated_stats(self) -> None:
        for counter in (self.requests, self.active, self.blocks, self.bytes):
            counter.reset_total()
