"""PyTorch's caching allocator (c10/cuda/CUDACachingAllocator.cpp), followed step by step.

The rules are PyTorch's; the proof that they are followed is ``bench/oracle``, which runs the same requests through
PyTorch's own allocator. Two things are outside PyTorch's say and chosen here: addresses grow and are never used twice
(they break ties between free blocks of equal size), and the driver can serve a request exactly while it has that many
bytes left.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from . import cache, expandable, pending
from .blocks import KEY_SHIFT, MIN_LARGE, ROUND_LARGE, SMALL_LIMIT, SMALL_SEGMENT, UNLIMITED, Block, Pool
from .captures import Captures, Filter
from .history import History, snapshot
from .messages import EXABYTE, TOO_LARGE, OutOfCardMemory, failure_of, rejection_of
from .settings import Settings
from .stats import PoolId, Stats
from .streams import StreamClock

FIRST_ADDRESS = 0x7000_0000_0000


class CachingAllocator:
    """The allocator of one card. Sizes are bytes; a stream is any integer, 0 the default one."""

    def __init__(
        self,
        total_bytes: int,
        *,
        outside_bytes: int = 0,
        settings: Settings | None = None,
        device_index: int = 0,
        streams: StreamClock | None = None,
        torch_version: tuple[int, int] = (2, 13),
        process_info: bool = True,
        other_process_bytes: int = 0,
    ) -> None:
        self.total_bytes = total_bytes
        self.outside_bytes = outside_bytes
        self.other_process_bytes = other_process_bytes
        self.other_process_pid = 1
        self.device_index = device_index
        self.torch_version = torch_version
        self.process_info = process_info
        self.streams = streams
        self.stats = Stats()
        self.reserved = 0
        self.allowed: int | None = None
        self.history = History()
        self.captures = Captures(self.stats, torch_version)
        self._recorded = self.captures.active
        self.small = Pool(True, self.stats.small)
        self.large = Pool(False, self.stats.large)
        self.heads: dict[int, Block] = {}  # the first block of every driver allocation, by its address
        self.expandable_segments = 0
        self.events = pending.Events(self)
        self._next_address = FIRST_ADDRESS
        self.start(settings or Settings())

    # ------------------------------------------------------------------ settings

    def start(self, settings: Settings) -> None:
        """The settings that the allocator begins with: PyTorch reads them when CUDA starts."""
        self.configure(settings)
        # PyTorch goes on reporting the limit that was in force then, as a signed number.
        self._first_max_split = self._max_split - (1 << 64) if self._max_split >> 63 else self._max_split

    def configure(self, settings: Settings) -> None:
        """Change the settings of a running allocator, as ``torch.cuda.memory._set_allocator_settings`` does."""
        self.settings = settings
        self._plain_rounding = not any(settings.roundup_power2_divisions)
        self._max_split = settings.max_split_size
        self._expandable = settings.expandable_segments
        if settings.per_process_memory_fraction < 1.0:
            self.set_memory_fraction(settings.per_process_memory_fraction)
        self._refresh()

    def set_memory_fraction(self, fraction: float) -> None:
        """Cap what this process may reserve at a share of the card."""
        self.allowed = int(fraction * float(self.total_bytes))
        self._refresh()

    def _refresh(self) -> None:
        self.tracks_age = self.allowed is not None and self.settings.garbage_collection_threshold > 0.0
        # Without these the first candidate of the right size is always the one taken.
        self._first_fit = not (
            self.tracks_age or self._expandable or self.expandable_segments or self._max_split != UNLIMITED
        )

    # ------------------------------------------------------------------ requests

    def malloc(self, nbytes: int, stream: int = 0) -> Block:
        """Serve a request. Raises :class:`OutOfCardMemory` when the card cannot."""
        if nbytes <= 0:
            return Block(0, 0, self.small, stream)
        if self._plain_rounding:
            size = (nbytes + 511) & ~511
        else:
            size = self.settings.round(nbytes)
        if nbytes >= EXABYTE:
            raise self._failure(size, size, stream, TOO_LARGE)
        if self.events.waiting and not self.captures.capturing:
            self.events.process()
        pool = self.small if size <= SMALL_LIMIT else self.large
        if self._recorded:
            pool = self.captures.pool_for(size, stream) or pool
        block: Block | None = None
        if self._first_fit:
            keys = pool.free.get(stream)
            if keys:
                at = bisect_left(keys, size << KEY_SHIFT)
                if at < len(keys):
                    block = pool.by_key.pop(keys[at])
                    del keys[at]
                    block.idle = False
        else:
            block = cache.find(self, pool, size, stream)
        if block is None:
            block = self._new_block(pool, size, nbytes, stream)
        return self._hand_out(block, pool, size, nbytes)

    def _hand_out(self, block: Block, pool: Pool, size: int, nbytes: int) -> Block:
        stats, total = pool.stats, self.stats.total
        rest = block.size - size
        split = block.prev is not None or block.next is not None
        if rest and (rest >= 512 if pool.small or self._expandable else rest > SMALL_LIMIT and size < self._max_split):
            tail = block
            block = Block(tail.address, size, pool, tail.stream, tail.segment)
            block.segment_frames, tail.segment_frames = tail.segment_frames, None
            before = tail.prev
            block.prev, block.next, tail.prev = before, tail, block
            if before is not None:
                before.next = block
            else:
                self.heads[block.address] = block
            tail.address += size
            tail.size = rest
            pool.put(tail)
            if tail.segment is None:
                if split:
                    stats.inactive_split_bytes -= size
                    total.inactive_split_bytes -= size
                else:
                    stats.add_split(1, rest)
                    total.add_split(1, rest)
        elif split and block.segment is None:
            stats.inactive_split -= 1
            total.inactive_split -= 1
            stats.inactive_split_bytes -= block.size
            total.inactive_split_bytes -= block.size
        block.allocated = True
        block.requested = nbytes
        size = block.size
        stats.allocation_total += 1
        stats.allocated_bytes_total += size
        stats.requested_bytes_total += nbytes
        stats.add_block(size, nbytes)
        total.add_block(size, nbytes)
        if total.pending:
            stats.add_active()
            total.add_active()
        if size >= self._max_split:
            self.stats.oversize_allocations.add(1)
        if self.history.enabled:
            self.history.allocated(block)
        return block

    def free(self, block: Block) -> None:
        """Give a block back. It waits when other streams were recorded on it."""
        if not block.allocated:
            if block.size:
                raise ValueError(f"double free of {block!r}")
            return
        block.allocated = False
        size = block.size
        stats, total = block.pool.stats, self.stats.total
        stats.allocation -= 1
        stats.allocated_bytes -= size
        total.allocation -= 1
        total.allocated_bytes -= size
        if size >= self._max_split:
            self.stats.oversize_allocations.remove(1)
        if self.history.enabled:
            self.history.freeing(block)
        if block.uses:
            self.events.delay(block)
        else:
            self.release(block)

    def release(self, block: Block) -> None:
        """Put a block that nobody uses any more among the free ones, joined with its free neighbours."""
        if self.history.enabled:
            self.history.freed(block)
        pool = block.pool
        requested = block.requested
        count = subsumed = 0
        near = block.prev
        if near is not None and near.idle and near.mapped:
            pool.take(near)
            subsumed = near.size
            count = -1
            block.address = near.address
            block.size += subsumed
            block.prev = before = near.prev
            if before is not None:
                before.next = block
            else:
                self.heads[block.address] = block
            block.segment_frames = near.segment_frames
        near = block.next
        if near is not None and near.idle and near.mapped:
            pool.take(near)
            subsumed += near.size
            count -= 1
            block.size += near.size
            block.next = after = near.next
            if after is not None:
                after.prev = block
        pool.put(block)
        stats, total = pool.stats, self.stats.total
        stats.requested_bytes -= requested
        total.requested_bytes -= requested
        if block.segment is None:
            if block.prev is not None or block.next is not None:
                count += 1
                subsumed -= block.size
            if count or subsumed:
                stats.add_split(count, -subsumed)
                total.add_split(count, -subsumed)

    def record_stream(self, block: Block, stream: int) -> None:
        """Note that ``stream`` uses the block too: once freed, it is not reused before that stream has passed here."""
        if stream != block.stream and block.size:
            if block.uses is None:
                block.uses = [stream]
            elif stream not in block.uses:
                block.uses.append(stream)
            if self.captures.capturing:
                self.events.captured.setdefault(block, []).append(stream)

    # ------------------------------------------------------------------ the driver

    def _new_block(self, pool: Pool, size: int, nbytes: int, stream: int) -> Block:
        if self.tracks_age:
            cache.collect(self)
        if size <= SMALL_LIMIT:
            chunk = SMALL_SEGMENT
        elif size < MIN_LARGE:
            chunk = self.settings.large_segment_size
        else:
            chunk = (size + ROUND_LARGE - 1) // ROUND_LARGE * ROUND_LARGE
        block = self._from_driver(pool, size, nbytes, chunk, stream)
        if block is None and cache.release_oversize(self, pool, size, stream):
            block = self._from_driver(pool, size, nbytes, chunk, stream)
        if block is None and not self.captures.capturing:
            cache.release_all(self)
            self.stats.num_alloc_retries += 1
            block = self._from_driver(pool, size, nbytes, chunk, stream)
        if block is None:
            raise self._failure(chunk, size, stream)
        return block

    def _from_driver(self, pool: Pool, size: int, nbytes: int, chunk: int, stream: int) -> Block | None:
        if self.allowed is not None and self.reserved + chunk > self.allowed:
            return None
        if self.settings.throw_on_cudamalloc_oom:
            limit = int(self.settings.per_process_memory_fraction * float(self.total_bytes))
            if self.reserved + nbytes > limit:
                self.stats.num_oom_rejections += 1
                raise self._failure(chunk, size, stream, rejection_of(nbytes))
        if self._expandable:
            block = expandable.allocate(self, pool, size, stream)
            if block is not None and pool.owner is not None:
                pool.owner.segments += 1
            return block
        if chunk > self.driver_free:
            return None
        block = Block(self.reserve_addresses(chunk), chunk, pool, stream)
        self.heads[block.address] = block
        self.reserved += chunk
        pool.stats.add_segment(chunk)
        self.stats.total.add_segment(chunk)
        if chunk >= self._max_split:
            self.stats.oversize_segments.add(1)
        if pool.owner is not None:
            pool.owner.segments += 1
            pool.owner.reserve(pool, chunk)
        self.stats.num_device_alloc += 1
        if self.history.enabled:
            self.history.segment("segment_alloc", block, block.address, chunk)
        return block

    def reserve_addresses(self, size: int) -> int:
        """A new, 2 MiB aligned range of device addresses."""
        address = self._next_address
        self._next_address += (size + SMALL_SEGMENT - 1) // SMALL_SEGMENT * SMALL_SEGMENT
        return address

    @property
    def driver_free(self) -> int:
        """What the driver could still hand out, never negative."""
        return max(0, self.total_bytes - self.outside_bytes - self.other_process_bytes - self.reserved)

    def _failure(self, chunk: int, size: int, stream: int, text: str | None = None) -> OutOfCardMemory:
        error = failure_of(self, chunk, size, text)
        if text is None:
            self.stats.num_ooms += 1
            if self.history.enabled:
                self.history.out_of_memory(error.free, size, stream)
        return error

    # ------------------------------------------------------------------ private pools

    def begin_pool(self, pool_id: PoolId, only: Filter | None = None, capturing: bool | None = None) -> None:
        """Serve requests from a private pool until :meth:`end_pool`; ``only`` picks the streams it applies to.

        ``capturing``: a CUDA graph is being captured, so nothing can be waited for. Before torch 2.13 (2.6 was
        looked at; in between nobody did) every private pool counts as a capture; None means what the version does.
        """
        self.captures.begin(pool_id, only, capturing)

    def end_pool(self, pool_id: PoolId) -> None:
        """Stop serving requests from the pool; what it holds stays its own."""
        self.captures.end(pool_id)

    def release_pool(self, pool_id: PoolId) -> None:
        """Drop one use of a pool; without uses, its unused segments may go back to the driver."""
        self.captures.release(pool_id)

    # ------------------------------------------------------------------ figures

    @property
    def allocated(self) -> int:
        """Bytes in blocks that the program holds."""
        return self.stats.total.allocated_bytes

    @property
    def peak_allocated(self) -> int:
        return self.stats.total.allocated_bytes_peak

    @property
    def peak_reserved(self) -> int:
        return self.stats.total.reserved_bytes_peak

    def mem_get_info(self) -> tuple[int, int]:
        """Free and total bytes as ``cudaMemGetInfo`` reports them."""
        return self.driver_free, self.total_bytes

    def empty_cache(self) -> None:
        """Return to the driver whatever is unused and not part of a segment in use."""
        cache.release_all(self)

    def reset_peak_stats(self) -> None:
        self.stats.reset_peaks()

    def reset_accumulated_stats(self) -> None:
        self.stats.reset_totals()

    def memory_stats(self) -> dict[str, int]:
        """The dictionary of ``torch.cuda.memory_stats``."""
        return dict(sorted(self.stats.as_dict(self._first_max_split, self.torch_version).items()))

    def memory_stats_as_nested_dict(self) -> dict[str, Any]:
        """The dictionary of ``torch.cuda.memory_stats_as_nested_dict``."""
        return self.stats.as_nested_dict(self._first_max_split, self.torch_version)

    def record_history(
        self, enabled: bool, max_entries: int | None = None, frames: Callable[[], Any] | None = None
    ) -> None:
        """Keep a trace of events for :meth:`snapshot`; ``frames`` supplies the stack of each."""
        self.history.start(max_entries, frames) if enabled else self.history.stop()

    def snapshot(self) -> dict[str, Any]:
        """The dictionary of ``torch.cuda.memory._snapshot``, which PyTorch's memory viewer opens once pickled."""
        return snapshot(self)
