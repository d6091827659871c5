"""What one request costs on the virtual card's allocator: the time of malloc plus the time of its free.

    python bench/allocator.py [--steps 40000] [--runs 5] [--limit MICROSECONDS]

Two loads: random requests (hard: every size class, a full card, retries, refusals), and the requests of a transformer
block over and over (what a pipeline really asks for). The median of the runs is printed in microseconds of processor
time per request; a request is one malloc and, later, one free. With ``--limit`` the exit status is 1 when a median of
the second load is above it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from oomdoctor.vgpu.allocator import CachingAllocator, OutOfCardMemory, Settings

MIB = 1 << 20
BLOCK = [24, 24, 72, 24, 24, 24, 1, 24, 96, 96, 24, 24, 1, 1, 24]  # MiB: norms, projections, attention, feed-forward
CONFS = ("", "expandable_segments:True", "max_split_size_mb:128", "garbage_collection_threshold:0.8")


def random_load(conf: str, steps: int) -> tuple[float, int]:
    """Requests of 256 bytes to 512 MiB, freed in any order, on a card that is mostly full; seconds and requests."""
    rng = random.Random(7)
    sizes = [int(2 ** rng.uniform(8, 29)) for _ in range(24)]
    plan = [
        (
            rng.random() < 0.48,
            rng.randrange(1 << 16),
            rng.choice(sizes) if rng.random() < 0.6 else rng.randrange(1 << 24),
        )
        for _ in range(2 * steps)
    ]
    card = _card(conf, 16 << 30)
    live = []
    requests = 0
    began = time.process_time()
    for gives_back, pick, size in plan:
        if gives_back and live:
            at = pick % len(live)
            live[at], block = live[-1], live[at]
            live.pop()
            card.free(block)
        else:
            requests += 1
            try:
                live.append(card.malloc(size))
            except OutOfCardMemory:
                for block in live[::2]:
                    card.free(block)
                live = live[1::2]
    return time.process_time() - began, requests


def block_load(conf: str, steps: int) -> tuple[float, int]:
    """Activations of a transformer block, each freed two requests later; seconds and requests."""
    card = _card(conf, 24 << 30)
    weights = [card.malloc(18 * MIB) for _ in range(200)]
    sizes = [size * MIB for size in BLOCK]
    live = []
    requests = 0
    began = time.process_time()
    while requests < steps:
        for size in sizes:
            live.append(card.malloc(size))
            if len(live) > 3:
                card.free(live.pop(0))
        requests += len(sizes)
    spent = time.process_time() - began
    assert len(weights) == 200
    return spent, requests


def _card(conf: str, total: int) -> CachingAllocator:
    card = CachingAllocator(total, outside_bytes=500 * MIB, settings=Settings.parse(conf))
    if "garbage" in conf:
        card.set_memory_fraction(0.9)
    return card


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, help="microseconds")
    options = parser.parse_args()
    slow = False
    loads: dict[str, Callable[[str, int], tuple[float, int]]] = {"random": random_load, "block": block_load}
    for name, load in loads.items():
        for conf in CONFS:
            costs = []
            for _ in range(options.runs):
                seconds, requests = load(conf, options.steps)
                costs.append(seconds / requests * 1e6)
            slow |= bool(options.limit and name == "block" and statistics.median(costs) > options.limit)
            print(
                f"{name:7} {conf or 'native':34} {statistics.median(costs):6.2f} us per request (best {min(costs):.2f})"
            )
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
