"""Request sequences as text, and playing them on the allocator.

One step is a letter and its operands::

    a4096@1   request 4096 bytes on stream 1       f3    free live block 3 (the last one takes its place)
    r3@2      live block 3 is used on stream 2     d2    stream 2 has done all its work
    e         empty_cache                          m0.5  set_per_process_memory_fraction(0.5)
    p         reset the peaks                      t     reset the totals
    g7 h7 k7  begin, end, release private pool 7   o512  512 bytes of the card are taken by others
    c<text>   new settings

Blocks are numbered modulo how many there are, so that a failed request does not invalidate what follows.
The oracle of ``bench/oracle`` plays the same steps on PyTorch's own allocator.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable

from .blocks import Block
from .caching import CachingAllocator
from .messages import OutOfCardMemory
from .settings import Settings


class SteppedClock:
    """Streams that have done their work only when they are told so; ``manual = False``: always."""

    def __init__(self) -> None:
        self.asked: dict[int, int] = {}
        self.passed: dict[int, int] = {}

    def record(self, stream: int) -> tuple[int, int]:
        number = self.asked[stream] = self.asked.get(stream, 0) + 1
        return stream, number

    def done(self, token: tuple[int, int]) -> bool:
        return token[1] <= self.passed.get(token[0], 0)

    def advance(self, stream: int) -> None:
        self.passed[stream] = self.asked.get(stream, 0)


class Player:
    """Plays steps on an allocator that was made with ``clock`` as its streams."""

    STREAM_IDS = [0] + [index << 5 | 3 for index in range(32)]  # as torch numbers the streams it makes

    def __init__(self, allocator: CachingAllocator, clock: SteppedClock) -> None:
        self.allocator = allocator
        self.clock = clock
        self.live: list[Block] = []

    def step(self, step: str) -> str:
        """Do one step; the text of the failure when a request could not be served, else nothing."""
        kind, rest = step[0], step[1:]
        allocator = self.allocator
        if kind == "a":
            size, _, stream = rest.partition("@")
            try:
                self.live.append(allocator.malloc(int(size), self.STREAM_IDS[int(stream or 0)]))
            except OutOfCardMemory as error:
                return error.text
        elif kind in "fr" and not self.live:
            pass
        elif kind == "f":
            at = int(rest) % len(self.live)
            self.live[at], block = self.live[-1], self.live[at]
            self.live.pop()
            allocator.free(block)
        elif kind == "r":
            which, _, stream = rest.partition("@")
            allocator.record_stream(self.live[int(which) % len(self.live)], self.STREAM_IDS[int(stream)])
        elif kind == "d":
            self.clock.advance(self.STREAM_IDS[int(rest)])
        elif kind == "e":
            allocator.empty_cache()
        elif kind == "m":
            allocator.set_memory_fraction(float(rest))
        elif kind == "p":
            allocator.reset_peak_stats()
        elif kind == "t":
            allocator.reset_accumulated_stats()
        elif kind in "ghk":
            {"g": allocator.begin_pool, "h": allocator.end_pool, "k": allocator.release_pool}[kind]((0, int(rest)))
        elif kind == "o":
            allocator.outside_bytes = int(rest)
        elif kind == "c":
            allocator.configure(Settings.parse(rest, allocator.torch_version, allocator.settings))
        else:
            raise ValueError(f"no such step: {step!r}")
        return ""


def checksum(stats: dict[str, int], before: int = 0) -> int:
    """A 32-bit sum over all statistics and over all earlier sums, so that one comparison covers every step so far."""
    return zlib.crc32(json.dumps(sorted(stats.items())).encode(), before)


def play(allocator: CachingAllocator, clock: SteppedClock, steps: Iterable[str]) -> list[tuple[int, str]]:
    """The running checksum and the failure text after each step."""
    player = Player(allocator, clock)
    out = []
    running = 0
    for step in steps:
        text = player.step(step)
        running = checksum(allocator.memory_stats(), running)
        out.append((running, text))
    return out
