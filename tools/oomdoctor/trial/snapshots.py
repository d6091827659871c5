"""The allocator's own trace of a run, with frames that say which module and which line asked. Child side."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

FILE = "snapshot.json"
ENTRIES = 200_000
"""The newest events that are kept; PyTorch's viewer gets slow beyond that."""
DEPTH = 10
"""Frames of one event."""
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def record(world: Any, path: str) -> None:
    """Keep a trace of every card from now on, timed by the card's clock. ``path``: the script."""
    for gpu in world.gpus:
        gpu.allocator.history.clock = (lambda g: lambda: g.clock.now)(gpu)
        gpu.allocator.record_history(True, ENTRIES, _frames(world.tracker, path))


def write(world: Any, scratch: str) -> bool:
    """Leave the snapshot of all cards in ``scratch`` as JSON (the parent pickles it, and unpickles nothing of ours)."""
    merged: dict[str, Any] = {}
    for gpu in world.gpus:
        one = gpu.allocator.snapshot()
        if not merged:
            merged = one
            continue
        merged["segments"] += one["segments"]
        merged["device_traces"].append(one["device_traces"][-1])
    with open(os.path.join(scratch, FILE), "w", encoding="utf-8") as file:
        json.dump(merged, file)
    return True


def _frames(tracker: Any, path: str) -> Callable[[], list[dict[str, Any]]]:
    """The innermost first, as in PyTorch: the module that runs, then Python's frames without torch's and ours."""
    boring = (_OURS, os.path.join(os.sep, "torch") + os.sep)

    def frames() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if tracker.component:
            found.append({"filename": tracker.component, "name": tracker.path or tracker.component, "line": 0})
        frame: Any = sys._getframe(2)
        while frame is not None and len(found) < DEPTH:
            code = frame.f_code
            name = code.co_filename
            if name == path or not (name.startswith(boring[0]) or boring[1] in name):
                found.append({"filename": name, "name": code.co_name, "line": frame.f_lineno or 0})
                if name == path and code.co_name == "<module>":
                    break
            frame = frame.f_back
        return found

    return frames
