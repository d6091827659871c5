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

PAGE = 4096


class PinnedBlock:
    """A pinned range; ``size`` is what is really pinned."""

    __slots__ = ("__weakref__", "allocated", "events", "requested", "reserve", "size", "uses")

    def __init__(self, size: int, reserve: bool = False) -> None:
        self.size = size
        self.requested = 0
        self.allocated = True
        self.uses: list[int] = []
        self.events = 0
        self.reserve = reserve  # part of the reserve segment, which is never unpinned


class OutOfPinnedMemory(Exception):
    """The host has no room for a pinned request; sizes are bytes. PyTorch only says ``CUDA error: out of memory``."""

    def __init__(self, requested: int, pinned: int, limit: int) -> None:
        self.text = "CUDA error: out of memory"
        super().__init__(self.text)
        self.requested = requested
        self.pinned = pinned
        self.limit = limit


class _Bucket:
    """The free blocks of one power of two, and what is in use of it."""

    __slots__ = ("bytes", "free", "requests")

    def __init__(self) -> None:
        self.free: list[PinnedBlock] = []
        self.requests = Counter()
        self.bytes = Counter()


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
        self.pinned = 0
        """Bytes that are pinned now, cached ones included."""
        self.peak_pinned = 0
        self.allocations = Counter()
        self.allocated_bytes = Counter()
        self._buckets: dict[int, _Bucket] = {}
        self._events: deque[tuple[Any, PinnedBlock]] = deque()
        self._reserve_left: int | None = None

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
        bucket = self._bucket(size)
        if bucket.free:
            block = bucket.free.pop()
            block.allocated = True
        else:
            block = PinnedBlock(size, self._from_reserve(size))
            if not block.reserve:
                self._pin(size)
            self.allocations.add(1)
            self.allocated_bytes.add(size)
        block.requested = nbytes
        bucket.requests.add(1)
        bucket.bytes.add(size)
        return block

    def _bucket(self, size: int) -> _Bucket:
        index = (size - 1).bit_length()
        bucket = self._buckets.get(index)
        if bucket is None:
            bucket = self._buckets[index] = _Bucket()
        return bucket

    def _pin(self, size: int) -> None:
        if self.limit is not None and self.pinned + size > self.limit:
            raise OutOfPinnedMemory(size, self.pinned, self.limit)
        self.pinned += size
        self.peak_pinned = max(self.peak_pinned, self.pinned)

    def _from_reserve(self, size: int) -> bool:
        """Whether the reserve segment, pinned whole with the first request, has room for a new block."""
        whole = self.settings.pinned_reserve_segment_size
        if not whole:
            return False
        if self._reserve_left is None:
            self._pin(whole)
            self._reserve_left = whole
        pages = (size + PAGE - 1) // PAGE * PAGE
        if pages > self._reserve_left:
            return False
        self._reserve_left -= pages
        return True

    def free(self, block: PinnedBlock) -> None:
        """Give a block back; it waits for the streams recorded on it."""
        if not block.size or not block.allocated:
            return
        block.allocated = False
        if not block.uses:
            self._cache(block)
            return
        for stream in block.uses:
            block.events += 1
            self._events.appendleft((self.streams.record(stream) if self.streams is not None else None, block))
        block.uses = []

    def record_stream(self, block: PinnedBlock, stream: int) -> None:
        """Note that ``stream`` copies from or to the block (every non-blocking copy does this)."""
        if block.size and stream not in block.uses:
            block.uses.append(stream)

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
        bucket = self._bucket(block.size)
        bucket.requests.remove(1)
        bucket.bytes.remove(block.size)
        if block.size > self.settings.pinned_max_cached_size:
            self._unpin(block)
        else:
            bucket.free.append(block)

    def _unpin(self, block: PinnedBlock) -> None:
        self.allocations.remove(1)
        self.allocated_bytes.remove(block.size)
        if not block.reserve:
            self.pinned -= block.size

    def empty_cache(self) -> None:
        """Unpin what is cached."""
        self.process_events()
        for bucket in self._buckets.values():
            for block in bucket.free:
                self._unpin(block)
            bucket.free.clear()

    def _counters(self) -> list[Counter]:
        counters = [self.allocations, self.allocated_bytes]
        for bucket in self._buckets.values():
            counters += [bucket.requests, bucket.bytes]
        return counters

    def reset_peak_stats(self) -> None:
        for counter in self._counters():
            counter.reset_peak()
        self.peak_pinned = self.pinned

    def reset_accumulated_stats(self) -> None:
        for counter in self._counters():
            counter.reset_total()

    def memory_stats(self) -> dict[str, int]:
        """``torch.cuda.host_memory_stats`` without its timings. Peaks of "active" are sums of peaks per power of two."""
        out = {}
        for name, counter in (("allocations", self.allocations), ("allocated_bytes", self.allocated_bytes)):
            out.update({f"{name}.{part}": value for part, value in counter.as_dict().items()})
        for name, field in (("active_requests", "requests"), ("active_bytes", "bytes")):
            for part in Counter.__slots__:
                counters = (getattr(bucket, field) for bucket in self._buckets.values())
                out[f"{name}.{part}"] = sum(int(getattr(counter, part)) for counter in counters)
        out["num_host_alloc"] = self.allocations.allocated
        out["num_host_free"] = self.allocations.freed
        return dict(sorted(out.items()))
