"""Expandable segments: one long address range per stream and pool, backed page by page as it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .blocks import SMALL_SEGMENT, Block, Pool, Segment

if TYPE_CHECKING:
    from .caching import CachingAllocator


def _usable(block: Block | None) -> bool:
    return block is not None and block.idle


def _find_room(allocator: CachingAllocator, pool: Pool, size: int, stream: int) -> Block:
    """The lowest place with ``size`` bytes of free or not yet backed addresses; a new segment if there is none."""
    for _, span in pool.unmapped.get(stream, ()):
        start = span.prev if span.prev is not None and span.prev.idle else span
        room, at = 0, start
        while room < size and _usable(at):
            room += at.size
            if at.next is None:
                break
            at = at.next
        if room >= size:
            return start
    page = SMALL_SEGMENT if pool.small else allocator.settings.large_segment_size
    # An eighth more than the card has, so that pages can be unmapped early in the range and mapped again late.
    wanted = allocator.total_bytes + allocator.total_bytes // 8
    pages = (wanted + page - 1) // page
    segment = Segment(allocator.reserve_addresses(page * pages), page, pages)
    block = Block(segment.address, segment.size, pool, stream, segment)
    block.mapped = False
    pool.put_unmapped(block)
    allocator.heads[segment.address] = block
    allocator.expandable_segments += 1
    return block


def _merge(allocator: CachingAllocator, dst: Block, src: Block | None) -> None:
    """Join an idle neighbour into ``dst`` when both are backed or both are not."""
    if src is None or not src.idle or dst.mapped != src.mapped:
        return
    if src.mapped:
        src.pool.take(src)
    else:
        src.pool.take_unmapped(src)
    if dst.prev is src:
        dst.address = src.address
        dst.prev = src.prev
        if dst.prev is not None:
            dst.prev.next = dst
        else:
            allocator.heads[dst.address] = dst
        dst.segment_frames = src.segment_frames
    else:
        dst.next = src.next
        if dst.next is not None:
            dst.next.prev = dst
    dst.size += src.size


def _map(allocator: CachingAllocator, block: Block, size: int) -> bool:
    """Back the first ``size`` bytes of an unmapped block with pages; False when the card has too few."""
    segment, pool = block.segment, block.pool
    assert segment is not None and not block.mapped
    mapped = (size + segment.page_bytes - 1) // segment.page_bytes * segment.page_bytes
    if mapped > allocator.driver_free:
        return False
    pool.take_unmapped(block)
    block.mapped = True
    address = block.address
    if mapped < block.size:
        rest = Block(block.address + mapped, block.size - mapped, pool, block.stream, segment)
        rest.mapped = False
        rest.insert_between(block, block.next)
        pool.put_unmapped(rest)
        block.size = mapped
    _merge(allocator, block, block.prev)
    _merge(allocator, block, block.next)
    pool.put(block)
    allocator.reserved += mapped
    pool.stats.add_reserved(mapped)
    allocator.stats.total.add_reserved(mapped)
    if pool.owner is not None:
        pool.owner.reserve(pool, mapped)
    allocator.stats.num_device_alloc += 1
    if allocator.history.enabled:
        allocator.history.segment("segment_map", block, address, mapped)
    return True


def allocate(allocator: CachingAllocator, pool: Pool, size: int, stream: int) -> Block | None:
    """A free block of at least ``size`` bytes at the lowest place, backed as needed; None when the card is full.

    Pages that were mapped before it turned out to be full stay mapped, as in PyTorch.
    """
    block = _find_room(allocator, pool, size, stream)
    if not block.mapped and not _map(allocator, block, min(block.size, size)):
        return None
    while block.size < size:
        after = block.next
        assert after is not None
        if not _map(allocator, after, min(size - block.size, after.size)):
            return None
        block = after
    pool.take(block)
    return block


def unmap(allocator: CachingAllocator, block: Block) -> None:
    """Give back the pages that lie wholly inside a free block."""
    segment, pool = block.segment, block.pool
    assert segment is not None
    page = segment.page_bytes
    first = (block.address - segment.address + page - 1) // page
    last = (block.address + block.size - segment.address) // page
    if first >= last:
        return
    address, size = segment.address + first * page, (last - first) * page
    pool.take(block)
    before = address - block.address
    if before:
        head = Block(block.address, before, pool, block.stream, segment)
        head.insert_between(block.prev, block)
        if head.prev is None:
            allocator.heads[head.address] = head
        pool.put(head)
    after = block.size - before - size
    if after:
        tail = Block(address + size, after, pool, block.stream, segment)
        tail.insert_between(block, block.next)
        pool.put(tail)
    block.address, block.size, block.mapped = address, size, False
    _merge(allocator, block, block.prev)
    _merge(allocator, block, block.next)
    pool.put_unmapped(block)
    allocator.reserved -= size
    for stats in (pool.stats, allocator.stats.total):
        stats.reserved_bytes -= size
    if pool.owner is not None:
        pool.owner.segments -= 1
        pool.owner.reserve(pool, -size)
    allocator.stats.num_device_free += 1
    if allocator.history.enabled:
        allocator.history.segment("segment_unmap", block, address, size)


def discard(allocator: CachingAllocator, block: Block) -> None:
    """Drop a segment of which no page is backed any more."""
    segment = block.segment
    assert segment is not None and not block.mapped
    block.pool.take_unmapped(block)
    del allocator.heads[segment.address]
    allocator.expandable_segments -= 1
