"""One address range in which blocks are placed best-fit: what a set of requests would need of a single growing segment.

That is how expandable segments work, and what a large freed segment offers to whatever comes after it. The recorded run
of a measurement keeps one beside the real allocator, without weights, so that planning knows how much of one range the
activations of each stage would take instead of guessing how many holes they leave.
"""

from __future__ import annotations

from bisect import bisect_left, insort


class Arena:
    """Places blocks in ``[0, top)`` and grows at the end. Keys are whatever names a block."""

    def __init__(self) -> None:
        self.top = 0
        """End of the highest byte in use or used since :meth:`settle`."""
        self._blocks: dict[int, tuple[int, int]] = {}
        """Key -> (start, size)."""
        self._free: list[tuple[int, int]] = []
        """(size, start), sorted: the first that is large enough is the best fit."""
        self._starts: dict[int, int] = {}
        """Start of a free range -> its size."""
        self._ends: dict[int, int] = {}
        """End of a free range -> its start."""

    def take(self, key: int, size: int) -> None:
        """Place a block of ``size`` bytes; an empty tensor has none."""
        if not size:
            return
        at = bisect_left(self._free, (size, -1))
        if at < len(self._free):
            free, start = self._free[at]
            self._drop(start, free)
            if free > size:
                self._keep(start + size, free - size)
        else:
            start = self._ends.get(self.top, self.top)
            if start < self.top:
                self._drop(start, self.top - start)
            self.top = start + size
        self._blocks[key] = (start, size)

    def give(self, key: int) -> None:
        """Free a block; a key that is not here (weights) is passed over."""
        place = self._blocks.pop(key, None)
        if place is None:
            return
        start, size = place
        before = self._ends.get(start)
        if before is not None:
            self._drop(before, start - before)
            start, size = before, size + start - before
        after = self._starts.get(start + size)
        if after is not None:
            self._drop(start + size, after)
            size += after
        self._keep(start, size)

    def settle(self) -> None:
        """Forget all holes: what is alive moves together, as it would lie had nothing else been there."""
        self._free.clear()
        self._starts.clear()
        self._ends.clear()
        self.top = 0
        for key, (_, size) in self._blocks.items():
            self._blocks[key] = (self.top, size)
            self.top += size

    def _keep(self, start: int, size: int) -> None:
        insort(self._free, (size, start))
        self._starts[start] = size
        self._ends[start + size] = start

    def _drop(self, start: int, size: int) -> None:
        del self._free[bisect_left(self._free, (size, start))]
        del self._starts[start]
        del self._ends[start + size]
