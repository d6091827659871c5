"""Frees that wait: blocks that other streams still use (``Tensor.record_stream``)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .blocks import Block
from .order import StreamOrder

if TYPE_CHECKING:
    from .caching import CachingAllocator


class Events:
    """The queue of events per stream, and the blocks that wait for them."""

    __slots__ = ("allocator", "captured", "deferred", "order", "queues", "waiting")

    def __init__(self, allocator: CachingAllocator) -> None:
        self.allocator = allocator
        self.order = StreamOrder(device=allocator.device_index)
        self.queues: dict[int, deque[tuple[Any, Block]]] = {}
        self.deferred: list[Block] = []  # freed while a private pool is recorded: events may not be made then
        self.captured: dict[Block, list[int]] = {}  # streams recorded on a block while a pool was
        self.waiting = False

    def delay(self, block: Block) -> None:
        """Keep a freed block until every recorded stream has passed this point."""
        for stats in (block.pool.stats, self.allocator.stats.total):
            stats.pending += 1
            stats.pending_bytes += block.size
        self.waiting = True
        if self.allocator.captures.capturing:
            self.deferred.append(block)
        else:
            self.captured.pop(block, None)
            self._insert(block)

    def _insert(self, block: Block) -> None:
        clock = self.allocator.streams
        uses = block.uses or []
        for stream in uses if len(uses) < 2 else StreamOrder(uses, self.allocator.device_index).slots():
            token = clock.record(stream) if clock is not None else None
            block.events += 1
            queue = self.queues.get(stream)
            if queue is None:
                queue = self.queues[stream] = deque()
                self.order.add(stream)
            queue.append((token, block))
        block.uses = None

    def _flush_deferred(self) -> None:
        for block in self.deferred:
            # What was recorded during the capture is over with it; only earlier uses still need an event.
            during = self.captured.pop(block, ())
            block.uses = [stream for stream in block.uses or () if stream not in during]
            self._insert(block)
            if block.events == 0:
                self._finish(block)
        self.deferred.clear()

    def process(self) -> None:
        """Free the blocks whose streams are done; a stream's events are looked at in order."""
        self._flush_deferred()
        clock = self.allocator.streams
        for stream in self.order.slots():
            queue = self.queues[stream]
            while queue:
                token, block = queue[0]
                if clock is not None and not clock.done(token):
                    break
                queue.popleft()
                self._passed(block)
            if not queue:
                del self.queues[stream]
                self.order.remove(stream)
        self.waiting = bool(self.queues)

    def synchronize(self) -> None:
        """Wait for everything, then free it all."""
        self.allocator.stats.num_sync_all_streams += 1
        self._flush_deferred()
        for stream in self.order.slots():
            for _, block in self.queues[stream]:
                self._passed(block)
        self.queues.clear()
        self.order.clear()
        self.waiting = False

    def _passed(self, block: Block) -> None:
        block.events -= 1
        if block.events == 0:
            self._finish(block)

    def _finish(self, block: Block) -> None:
        for stats in (block.pool.stats, self.allocator.stats.total):
            stats.pending -= 1
            stats.pending_bytes -= block.size
        self.allocator.release(block)
