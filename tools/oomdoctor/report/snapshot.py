"""The allocator's snapshot as the pickle that https://pytorch.org/memory_viz and ``torch.cuda._memory_viz`` open."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from oomdoctor.report.files import finished_file

PROTOCOL = 4
"""What ``torch.cuda.memory._dump_snapshot`` writes; the viewer's own unpickler knows it."""


def write_snapshot(snapshot: dict[str, Any], path: Path) -> None:
    """Pickle a snapshot that came as JSON (its tuples became lists on the way). Raises :class:`UnreadableFile`."""
    for segment in snapshot.get("segments", ()):
        if isinstance(segment, dict) and isinstance(segment.get("segment_pool_id"), list):
            segment["segment_pool_id"] = tuple(segment["segment_pool_id"])
    with finished_file(path, "--snapshot") as name, open(name, "wb") as file:
        pickle.dump(snapshot, file, protocol=PROTOCOL)
