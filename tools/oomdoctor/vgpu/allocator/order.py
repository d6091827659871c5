"""The order in which PyTorch visits streams: that of its open-addressing hash table (c10/util/flat_hash_map.h).

When several streams finish between two requests, the order in which their blocks become free decides how often free
blocks appear and are joined again, which ``inactive_split`` counts. So the table's layout is followed: robin-hood
insertion, backward shift on removal, Fibonacci hashing, growth at half load.
"""

from __future__ import annotations

from collections.abc import Iterable

CUDA = 1  # the number of the device type, which is part of a stream's hash
FIBONACCI = 11400714819323198485
MASK = (1 << 64) - 1
EMPTY, END = -1, 0


class StreamOrder:
    """A set of stream ids, visited slot by slot."""

    __slots__ = ("buckets", "count", "device", "distances", "keys", "lookups")

    def __init__(self, streams: Iterable[int] = (), device: int = 0) -> None:
        self.device = device
        self.buckets = 0
        self.lookups = 3
        self.count = 0
        self.keys: list[int] = [0] * 4
        self.distances: list[int] = [EMPTY, EMPTY, EMPTY, END]
        for stream in streams:
            self.add(stream)

    def _home(self, stream: int) -> int:
        if not self.buckets:
            return 0
        value = CUDA << 56 | (self.device & 0xFF) << 48 | stream & 0xFFFF_FFFF_FFFF
        return (value * FIBONACCI & MASK) >> (65 - self.buckets.bit_length())

    def slots(self) -> list[int]:
        """The ids in visiting order."""
        return [self.keys[at] for at in range(len(self.keys) - 1) if self.distances[at] >= 0]

    def add(self, stream: int) -> None:
        at, distance = self._home(stream), 0
        last = len(self.keys) - 1
        while self.distances[at] >= distance and at != last:
            if self.keys[at] == stream:
                return
            at, distance = at + 1, distance + 1
        if not self.buckets or distance == self.lookups or 2 * (self.count + 1) > self.buckets:
            self._grow()
            self.add(stream)
            return
        first = at
        while self.distances[at] != EMPTY:
            if distance > self.distances[at]:
                self.distances[at], distance = distance, self.distances[at]
                self.keys[at], stream = stream, self.keys[at]
            at, distance = at + 1, distance + 1
            if distance == self.lookups:
                self.keys[first], stream = stream, self.keys[first]
                self._grow()
                self.add(stream)
                return
        self.keys[at], self.distances[at] = stream, distance
        self.count += 1

    def remove(self, stream: int) -> None:
        at = self.keys.index(stream, self._home(stream))
        self.distances[at] = EMPTY
        self.count -= 1
        while self.distances[at + 1] > 0:
            self.keys[at], self.distances[at] = self.keys[at + 1], self.distances[at + 1] - 1
            at += 1
            self.distances[at] = EMPTY

    def clear(self) -> None:
        """Forget the ids but not the size of the table."""
        self.distances[:-1] = [EMPTY] * (len(self.distances) - 1)
        self.count = 0

    def _grow(self) -> None:
        held = self.slots()
        self.buckets = max(4, 2 * self.buckets)
        self.lookups = max(4, self.buckets.bit_length() - 1)
        size = self.buckets + self.lookups
        self.keys = [0] * size
        self.distances = [EMPTY] * (size - 1) + [END]
        self.count = 0
        for stream in held:
            self.add(stream)
