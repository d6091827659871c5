"""Traces and snapshots in the form of ``torch.cuda.memory._snapshot``, which PyTorch's memory viewer opens."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .blocks import UNLIMITED, Block
from .settings import INTERVALS
from .stats import PoolId

if TYPE_CHECKING:
    from .caching import CachingAllocator

Frames = list[dict[str, Any]]


class History:
    """The ring of trace entries; empty and free of cost until it is started."""

    __slots__ = ("clock", "enabled", "entries", "frames", "names_pool")

    def __init__(self) -> None:
        self.enabled = False
        self.entries: deque[dict[str, Any]] = deque()
        self.frames: Callable[[], Frames] | None = None
        self.clock: Callable[[], float] = time.time
        self.names_pool = True

    def start(self, max_entries: int | None, frames: Callable[[], Frames] | None) -> None:
        self.enabled = True
        self.frames = frames
        self.entries = deque(self.entries, maxlen=None if max_entries is None else max(1, max_entries))

    def stop(self) -> None:
        self.enabled = False
        self.entries.clear()

    def _add(self, action: str, address: int, size: int, stream: int, frames: Frames | None) -> None:
        entry: dict[str, Any] = {"action": action}
        entry["device_free" if action == "oom" else "addr"] = address
        entry.update(size=size, stream=stream, time_us=int(self.clock() * 1_000_000))
        if frames is not None:
            entry["frames"] = frames
        self.entries.append(entry)

    def _now(self) -> Frames:
        return self.frames() if self.frames is not None else []

    def allocated(self, block: Block) -> None:
        block.frames = self._now()
        self._add("alloc", block.address, block.requested, block.stream, block.frames)

    def freeing(self, block: Block) -> None:
        self._add("free_requested", block.address, block.requested, block.stream, self._now())

    def freed(self, block: Block) -> None:
        self._add("free_completed", block.address, block.requested, block.stream, self._now())
        block.frames = None

    def segment(self, action: str, block: Block, address: int, size: int) -> None:
        frames = self._now()
        if action == "segment_alloc" or (action == "segment_map" and block.prev is None and not block.segment_frames):
            block.segment_frames = frames
        self._add(action, address, size, block.stream, frames)

    def out_of_memory(self, free: int, size: int, stream: int) -> None:
        self._add("oom", free, size, stream, self._now())

    def snapshot_taken(self, active: int) -> None:
        self._add("snapshot", 0, active, 0, None)


def _block_info(block: Block) -> dict[str, Any]:
    waiting = not block.idle and not block.allocated
    state = "active_allocated" if block.allocated else "active_pending_free" if waiting else "inactive"
    return {
        "address": block.address,
        "size": block.size,
        "requested_size": block.requested,
        "state": state,
        "frames": block.frames or [],
    }


def _segment_info(head: Block, run: list[Block], device: int, pool_id: PoolId) -> dict[str, Any]:
    active = [block for block in run if not block.idle]
    return {
        "device": device,
        "address": head.address,
        "total_size": sum(block.size for block in run),
        "allocated_size": sum(block.size for block in run if block.allocated),
        "active_size": sum(block.size for block in active),
        "requested_size": sum(block.requested for block in active),
        "stream": head.stream,
        "segment_type": "small" if head.pool.small else "large",
        "segment_pool_id": pool_id,
        "is_expandable": head.segment is not None,
        "frames": head.segment_frames or [],
        "blocks": [_block_info(block) for block in run],
    }


def _segments(allocator: CachingAllocator) -> list[dict[str, Any]]:
    owners = {id(pool): pool_id for pool_id, pool in allocator.captures.pools.items()}
    found = []
    for address in sorted(allocator.heads):
        run: list[Block] = []
        block: Block | None = allocator.heads[address]
        while block is not None:
            if block.mapped:
                run.append(block)
            if run and (not block.mapped or block.next is None):
                # An expandable segment counts once per contiguous range that is backed.
                pool_id = owners.get(id(run[0].pool.owner), (0, 0))
                found.append(_segment_info(run[0], run, allocator.device_index, pool_id))
                run = []
            block = block.next
    return found


def snapshot(allocator: CachingAllocator) -> dict[str, Any]:
    """Segments with their blocks, the recorded trace, and the settings."""
    trace = list(allocator.history.entries)
    segments = _segments(allocator)
    if allocator.history.enabled:
        allocator.history.snapshot_taken(sum(segment["active_size"] for segment in segments))
    settings = allocator.settings
    traces: list[list[dict[str, Any]]] = [[] for _ in range(allocator.device_index)] + [trace]
    return {
        "segments": segments,
        "device_traces": traces,
        "allocator_settings": {
            "PYTORCH_CUDA_ALLOC_CONF": settings.text,
            "max_split_size": -1 if settings.max_split_size == UNLIMITED else settings.max_split_size,
            "garbage_collection_threshold": settings.garbage_collection_threshold,
            "expandable_segments": settings.expandable_segments,
            "pinned_num_register_threads": settings.pinned_num_register_threads,
            "release_lock_on_cudamalloc": settings.release_lock_on_cudamalloc,
            "pinned_use_cuda_host_register": settings.pinned_use_cuda_host_register,
            "roundup_power2_divisions": {
                str(1 << step): settings.roundup_power2_divisions[step] for step in range(INTERVALS)
            },
        },
        "external_annotations": [],
    }
