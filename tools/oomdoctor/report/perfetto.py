"""A run as a timeline in the Trace Event Format, which https://ui.perfetto.dev and chrome://tracing open.

Format: "Trace Event Format" of the Chromium project (complete events ``X``, counters ``C``, instants ``i``, metadata
``M``; times in microseconds).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from oomdoctor.report.files import finished_file
from oomdoctor.values import MemoryTimeline, Trial

CARD = 1
STAGES, MODULES = 1, 2
"""Rows of the card's process."""


def write_trace(trial: Trial, path: Path) -> None:
    """Write the timeline of a trial that was run with one. Raises :class:`UnreadableFile`."""
    with finished_file(path, "--trace") as name, open(name, "w", encoding="utf-8") as file:
        json.dump({"displayTimeUnit": "ms", "traceEvents": events(trial)}, file)


def events(trial: Trial) -> list[dict[str, Any]]:
    """All events of a trial; empty but for the names when it has no timeline."""
    line = trial.timeline or MemoryTimeline()
    out: list[dict[str, Any]] = [
        _name("process_name", trial.device),
        _name("thread_name", "stages", STAGES),
        _name("thread_name", "components and blocks", MODULES),
    ]
    for s in line.stretches:
        label = s.stage.value + (f" {s.component}" if s.component else "")
        out.append(_span(label, s.start, s.end, STAGES, {"component": s.component or ""}))
    # Nested events of one row must begin with the outer one.
    for c in sorted(line.spans, key=lambda c: (c.start, -c.end)):
        out.append(_span(f"{c.component}.{c.path}" if c.path else c.component, c.start, c.end, MODULES, {}))
    rows = zip(line.seconds, line.allocated_bytes, line.reserved_bytes, line.weights_bytes, strict=True)
    for seconds, allocated, reserved, weights in rows:
        base = {"ph": "C", "pid": CARD, "ts": _us(seconds)}
        out.append(
            {**base, "name": "allocated", "args": {"weights": weights, "activations": max(0, allocated - weights)}}
        )
        out.append({**base, "name": "reserved", "args": {"bytes": reserved}})
    if trial.died is not None:
        out.append({
            "name": "out of memory", "ph": "i", "s": "p", "pid": CARD, "tid": STAGES, "ts": _us(trial.died.seconds or 0.0),
            "args": {"requested_bytes": trial.died.requested_bytes, "module": trial.died.path, "line": trial.died.line},
        })  # fmt: skip
    return out


def _name(kind: str, name: str, row: int = 0) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": CARD, "tid": row, "args": {"name": name}}


def _span(name: str, start: float, end: float, row: int, args: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name, "ph": "X", "pid": CARD, "tid": row, "ts": _us(start), "dur": max(0.0, _us(end) - _us(start)), "args": args
    }  # fmt: skip


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)
