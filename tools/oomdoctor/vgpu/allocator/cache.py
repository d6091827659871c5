"""Searching the cache when options are on, and giving cached memory back to the driver."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from . import expandable
from .blocks import KEY_SHIFT, UNLIMITED, Block, Pool

if TYPE_CHECKING:
    from .caching import CachingAllocator


def _expandable_size(block: Block) -> int:
    after = block.next
    return block.size + (after.size if after is not None and not after.mapped else 0)


def find(allocator: CachingAllocator, pool: Pool, size: int, stream: int) -> Block | None:
    """The cached block for a request, taken out of the pool; None when there is none that may be used."""
    if allocator.tracks_age:
        pool.gc_calls += 1
    keys = pool.free.get(stream)
    if not keys:
        return None
    at = bisect_left(keys, size << KEY_SHIFT)
    if at == len(keys):
        return None
    block = pool.by_key[keys[at]]
    if block.segment is not None:
        if allocator.settings.expandable_segments:
            # A block that can still grow counts as large as it can become, so a closer fit may follow.
            while block.segment is not None and at + 1 < len(keys):
                after = pool.by_key[keys[at + 1]]
                if _expandable_size(after) >= _expandable_size(block):
                    break
                block, at = after, at + 1
        else:
            while block.segment is not None:
                at += 1
                if at == len(keys):
                    return None
                block = pool.by_key[keys[at]]
    limit = allocator.settings.max_split_size
    if size < limit <= block.size:
        return None
    if size >= limit and block.size >= size + allocator.settings.max_non_split_rounding:
        return None
    del pool.by_key[keys[at]]
    del keys[at]
    block.idle = False
    return block


def release_block(allocator: CachingAllocator, block: Block) -> None:
    """``cudaFree`` a whole, unused segment."""
    pool, size = block.pool, block.size
    stats = allocator.stats
    stats.num_device_free += 1
    if allocator.history.enabled:
        allocator.history.segment("segment_free", block, block.address, size)
    allocator.reserved -= size
    if pool.owner is not None:
        pool.owner.segments -= 1
        pool.owner.reserve(pool, -size)
    for counters in (pool.stats, stats.total):
        counters.segment -= 1
        counters.reserved_bytes -= size
    if size >= allocator.settings.max_split_size:
        stats.oversize_segments.remove(1)
    pool.take(block)
    del allocator.heads[block.address]


def _whole(block: Block) -> bool:
    """Whether the block is all of a driver allocation. PyTorch does not ask; a part could not be given back."""
    return block.segment is None and block.prev is None and block.next is None


def release_oversize(allocator: CachingAllocator, pool: Pool, size: int, stream: int) -> bool:
    """With ``max_split_size_mb``: give back just enough oversize blocks for a request, the closest fit or the largest."""
    limit = allocator.settings.max_split_size
    if limit == UNLIMITED:
        return False
    wanted = max(size, limit)
    keys = pool.free.get(stream, [])
    at = bisect_left(keys, wanted << KEY_SHIFT)
    if at < len(keys) and _whole(pool.by_key[keys[at]]):
        release_block(allocator, pool.by_key[keys[at]])
        return True
    released = 0
    while at and released < wanted:
        at -= 1
        block = pool.by_key[keys[at]]
        if block.size < limit:
            break
        if _whole(block):
            released += block.size
            release_block(allocator, block)
    return released >= wanted


def release_all(allocator: CachingAllocator) -> None:
    """Wait for delayed frees, then give back every unused segment and every unused page of expandable ones."""
    allocator.events.synchronize()
    _release_pool(allocator, allocator.large)
    _release_pool(allocator, allocator.small)
    for pool_id, private in list(allocator.captures.freeable.items()):
        _release_pool(allocator, private.small)
        _release_pool(allocator, private.large)
        if private.segments == 0:
            del allocator.captures.pools[pool_id], allocator.captures.freeable[pool_id]


def _release_pool(allocator: CachingAllocator, pool: Pool) -> None:
    grown = []
    for block in pool.blocks():
        if block.segment is not None:
            grown.append(block)
        elif block.prev is None and block.next is None:
            release_block(allocator, block)
    for block in grown:
        expandable.unmap(allocator, block)
        if block.prev is None and block.next is None:
            expandable.discard(allocator, block)


def collect(allocator: CachingAllocator) -> None:
    """With ``garbage_collection_threshold``: give back large segments that have not been asked for in a while."""
    assert allocator.allowed is not None
    threshold = int(allocator.settings.garbage_collection_threshold * float(allocator.allowed))
    if allocator.reserved <= threshold:
        return
    target = allocator.reserved - threshold
    pool = allocator.large
    whole = [block for block in pool.blocks() if block.prev is None and block.next is None]
    age = sum(pool.gc_calls - block.gc_base for block in whole)
    reclaimed = 0
    freed = True
    while whole and freed and reclaimed < target:
        average = age / len(whole)
        freed = False
        kept = []
        for block in whole:
            block_age = pool.gc_calls - block.gc_base
            if block_age >= average:
                freed = True
                reclaimed += block.size
                age -= block_age
                release_block(allocator, block)
            else:
                kept.append(block)
        whole = kept
