"""Blocks and pools: the data the caching allocator moves around.

A free block is found by one integer, ``size << 48 | address``: sorting these is sorting by size and then by address,
which is the order PyTorch searches in (best fit, lowest address first), and comparing two of them costs one machine
operation instead of a tuple comparison. Device addresses fit in 48 bits.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

from .stats import PoolId, PoolStats, Stats

MIN_BLOCK = 512  # every request is rounded up to a multiple of this
SMALL_LIMIT = 1 << 20  # the largest request that is served from the small pool
SMALL_SEGMENT = 2 << 20  # a segment of the small pool
LARGE_SEGMENT = 20 << 20  # what requests under ``MIN_LARGE`` take from the driver
MIN_LARGE = 10 << 20  # from here on a request gets a segment of its own
ROUND_LARGE = 2 << 20  # such segments are multiples of this
UNLIMITED = (1 << 64) - 1
KEY_SHIFT = 48


class Segment:
    """The address range of an expandable segment: ``pages`` of ``page_bytes``, mapped one by one."""

    __slots__ = ("address", "mapped", "page_bytes", "pages")

    def __init__(self, address: int, page_bytes: int, pages: int) -> None:
        self.address = address
        self.page_bytes = page_bytes
        self.pages = pages
        self.mapped = 0

    @property
    def size(self) -> int:
        return self.page_bytes * self.pages


class Block:
    """A range of device addresses: handed out (``allocated``), waiting for other streams, or free (``idle``)."""

    __slots__ = (
        "__weakref__",
        "address",
        "allocated",
        "events",
        "frames",
        "gc_base",
        "idle",
        "mapped",
        "next",
        "pool",
        "prev",
        "requested",
        "segment",
        "segment_frames",
        "size",
        "stream",
        "uses",
    )

    def __init__(self, address: int, size: int, pool: Pool, stream: int, segment: Segment | None = None) -> None:
        self.address = address
        self.size = size
        self.requested = 0
        self.pool = pool
        self.stream = stream
        self.allocated = False
        self.idle = False
        self.mapped = True
        self.prev: Block | None = None
        self.next: Block | None = None
        self.segment = segment
        self.uses: list[int] | None = None
        self.events = 0
        self.gc_base = 0
        self.frames: Any = None
        self.segment_frames: Any = None

    def __repr__(self) -> str:
        state = "allocated" if self.allocated else "idle" if self.idle else "pending"
        return f"<Block {self.size} bytes at {self.address:#x}, stream {self.stream}, {state}>"

    def insert_between(self, before: Block | None, after: Block | None) -> None:
        """Link the block into its segment's chain."""
        self.prev, self.next = before, after
        if before is not None:
            before.next = self
        if after is not None:
            after.prev = self


class Pool:
    """The free blocks of one kind (small or large), kept apart by stream."""

    __slots__ = ("by_key", "free", "gc_calls", "owner", "small", "stats", "unmapped")

    def __init__(self, small: bool, stats: PoolStats, owner: PrivatePool | None = None) -> None:
        self.small = small
        self.owner = owner
        self.stats = stats
        self.free: dict[int, list[int]] = {}
        self.by_key: dict[int, Block] = {}
        self.unmapped: dict[int, list[tuple[int, Block]]] = {}
        self.gc_calls = 0

    def put(self, block: Block) -> None:
        """Make ``block`` available."""
        block.idle = True
        block.gc_base = self.gc_calls
        key = block.size << KEY_SHIFT | block.address
        self.by_key[key] = block
        keys = self.free.get(block.stream)
        if keys is None:
            self.free[block.stream] = [key]
        else:
            insort(keys, key)

    def take(self, block: Block) -> None:
        """Remove a free block that is known to be here."""
        block.idle = False
        key = block.size << KEY_SHIFT | block.address
        keys = self.free[block.stream]
        del keys[bisect_left(keys, key)]
        del self.by_key[key]

    def put_unmapped(self, block: Block) -> None:
        block.idle = True
        insort(self.unmapped.setdefault(block.stream, []), (block.address, block))

    def take_unmapped(self, block: Block) -> None:
        block.idle = False
        spans = self.unmapped[block.stream]
        del spans[bisect_left(spans, block.address, key=lambda span: span[0])]

    def blocks(self) -> list[Block]:
        """All free blocks: by stream, then size, then address."""
        return [self.by_key[key] for stream in sorted(self.free) for key in self.free[stream]]

    @property
    def idle_bytes(self) -> int:
        return sum(key >> KEY_SHIFT for key in self.by_key)


class PrivatePool:
    """A pair of pools that only allocations made under its id use (CUDA graphs, ``torch.cuda.MemPool``)."""

    __slots__ = ("large", "pool_id", "segments", "small", "stats", "use_count")

    def __init__(self, pool_id: PoolId, stats: Stats) -> None:
        self.pool_id = pool_id
        self.stats = stats
        self.small = Pool(True, stats.small, self)
        self.large = Pool(False, stats.large, self)
        self.use_count = 1
        self.segments = 0  # driver allocations not yet returned

    def reserve(self, pool: Pool, size: int) -> None:
        """Count what was taken from the driver for this pool, or given back (negative)."""
        known = self.stats.private.get(self.pool_id)
        if known is None:
            known = self.stats.private[self.pool_id] = (PoolStats(), PoolStats(), PoolStats())
        for stats in (known[0 if pool.small else 1], known[2]):
            if size > 0:
                stats.add_reserved(size)
            else:
                stats.reserved_bytes += size
