"""A card in use: its allocator, its streams, and what each byte on it is for."""

from __future__ import annotations

import os
from collections.abc import Callable

from oomdoctor.vgpu.allocator import CachingAllocator, OutOfCardMemory, Settings, UncachedAllocator
from oomdoctor.vgpu.allocator.arena import Arena
from oomdoctor.vgpu.allocator.uncached import VARIABLE as UNCACHED
from oomdoctor.vgpu.card import VirtualCard
from oomdoctor.vgpu.clock import Clock
from oomdoctor.vgpu.storage import ACTIVATIONS, WEIGHTS, Storage
from oomdoctor.vgpu.timeline import Timeline
from oomdoctor.vgpu.tracker import Tracker


class Gpu:
    """One virtual card."""

    def __init__(self, card: VirtualCard, index: int, torch_version: tuple[int, int], tracker: Tracker) -> None:
        self.card = card
        self.index = index
        self.clock = Clock()
        self.stream = 0
        self.streams_taken: dict[int, int] = {}
        """How many side streams were asked for, by priority."""
        self.transferred = 0
        """Bytes copied between host and card so far."""
        self.tracker = tracker
        self.allocator = self._allocator(CachingAllocator, torch_version)
        self.arena = Arena() if tracker.recording else None
        """Beside the allocator: one range that holds everything but weights."""
        self.matmul_workspaces: dict[int, Storage] = {}
        """What cuBLAS keeps, by stream."""
        self.weights = 0
        """Bytes of the blocks that hold weights now."""
        self.live: dict[tuple[str, str, str], int] = {}
        """(kind, component, module path) -> bytes allocated now; weights are counted per component only."""
        self.alive_at_peak: dict[tuple[str, str, str], int] = {}
        self.peak_moment = ("", "", "", 0.0)
        """Stage, component, module path and second of the highest amount so far."""
        self.peak_reserved_then = 0
        """What the allocator held from the driver at that moment."""
        self.purpose = ACTIVATIONS
        """What memory without another kind is taken for now (``attention`` within an attention kernel)."""
        self.timeline: Timeline | None = None
        self.trail = 0
        """Hash of all request sizes so far; equal stretches of a run have equal hashes."""
        self.assume: Callable[[str], None] = lambda sentence: None
        """Told of every rule that stands in for what is not simulated."""
        self._started = False
        self._snapshot_due = False
        self._peak = 0

    def _allocator(self, kind: type[CachingAllocator], torch_version: tuple[int, int]) -> CachingAllocator:
        return kind(
            self.card.total_bytes,
            outside_bytes=self.card.context_bytes,
            device_index=self.index,
            streams=self.clock,
            torch_version=torch_version,
            other_process_bytes=self.card.other_process_bytes,
        )

    def _start(self) -> None:
        """PyTorch reads its variables when CUDA starts, so a script may still set them after ``import torch``."""
        self._started = True
        version = self.allocator.torch_version
        settings = Settings.from_environment(os.environ, version)
        if UNCACHED in os.environ:
            self.allocator = self._allocator(UncachedAllocator, version)
        self.allocator.start(settings)
        for sentence in settings.not_simulated():
            self.assume(sentence)

    def take(self, nbytes: int, kind: str = ACTIVATIONS) -> Storage:
        """Memory for a tensor. Raises :class:`OutOfCardMemory` in the words of the installed torch."""
        if not self._started:
            self._start()
        try:
            block = self.allocator.malloc(nbytes, self.stream)
        except OutOfCardMemory:
            self.tracker.out_of_memory(self, nbytes)
            raise
        size = block.size
        self.trail = (self.trail * 1000003 ^ nbytes) & 0xFFFFFFFFFFFFFFF
        tracker = self.tracker
        owner = tracker.component
        if kind is ACTIVATIONS:
            kind = self.purpose
        key = (kind, owner, tracker.path)
        self.live[key] = self.live.get(key, 0) + size
        allocated = self.allocator.allocated
        if allocated > self._peak:
            self._peak = allocated
            self._snapshot_due = True
            self.peak_moment = (tracker.stage, owner, tracker.path, self.clock.now)
            self.peak_reserved_then = self.allocator.reserved
        activation = allocated - self.weights
        if activation > tracker.interval_peak:
            tracker.interval_peak = activation
        if allocated > tracker.stage_allocated:
            tracker.stage_allocated = allocated
        if self.allocator.reserved > tracker.stage_reserved:
            tracker.stage_reserved = self.allocator.reserved
        if self.timeline is not None:
            self.timeline.note(self)
        storage = Storage(self, block, nbytes, size, kind, owner, 0x7F0000000000 + block.address)
        storage.path = tracker.path
        if self.arena is not None and kind != WEIGHTS:
            self.arena.take(id(storage), size)
        return storage

    def release(self, storage: Storage) -> None:
        if self._snapshot_due:
            # The first free after a rise of the peak: what is alive now is what was alive at the peak.
            self.alive_at_peak = dict(self.live)
            self._snapshot_due = False
        if self.timeline is not None:
            self.timeline.note(self)
        self._forget(storage)
        if storage.kind == WEIGHTS:
            self.weights -= storage.size
        elif self.arena is not None:
            self.arena.give(id(storage))
        self.allocator.free(storage.block)

    def retag(self, storage: Storage, kind: str, owner: str) -> None:
        self._forget(storage)
        if storage.kind != WEIGHTS and kind == WEIGHTS:
            self.weights += storage.size
            if self.arena is not None:
                self.arena.give(id(storage))
        storage.kind, storage.owner = kind, owner
        if kind == WEIGHTS:
            storage.path = ""
        key = (kind, owner, storage.path)
        self.live[key] = self.live.get(key, 0) + storage.size

    def _forget(self, storage: Storage) -> None:
        key = (storage.kind, storage.owner, storage.path)
        left = self.live.get(key, 0) - storage.size
        if left:
            self.live[key] = left
        else:
            self.live.pop(key, None)  # an empty tensor may be the last of its key after the others

    def scratch(self, *requests: int) -> None:
        """Memory that a kernel takes through the allocator and gives back when it is launched (a workspace).

        Several requests are held together.
        """
        kept = [self.take(nbytes, "workspace") for nbytes in requests if nbytes > 0]
        del kept

    def finish(self) -> None:
        """Close the books at the end of a run."""
        if self._snapshot_due:
            self.alive_at_peak = dict(self.live)
            self._snapshot_due = False
        if self.timeline is not None:
            self.timeline.close(self)
