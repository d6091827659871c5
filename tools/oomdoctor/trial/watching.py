"""Tell the parent how far a run is, a few times a second at most. Child side."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

EVERY = 0.1
"""Seconds between two messages about calls; stages are always told."""


def follow(world: Any, tell: Callable[[dict[str, Any]], None]) -> None:
    """From now on: ``stage`` messages when a stage begins, ``live`` messages while components are called."""
    tracker = world.tracker
    last = [0.0]

    def live(component: str, step: int) -> None:
        now = time.monotonic()
        if now - last[0] < EVERY:
            return
        last[0] = now
        gpu = world.gpu
        message = {
            "stage": tracker.stage,
            "component": component,
            "step": step,
            "allocated_bytes": gpu.allocator.allocated,
            "reserved_bytes": gpu.allocator.reserved + gpu.card.context_bytes + gpu.card.other_process_bytes,
            "total_bytes": gpu.card.total_bytes,
        }
        tell({"live": message})

    tracker.on_stage = lambda stage, component: tell({"stage": stage, "component": component})
    tracker.on_call = live
