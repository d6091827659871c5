"""What ``bench/planner.py`` found, summed up, and its record in ``bench/recorded/planner.json``."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

RECORD = Path(__file__).resolve().parent / "recorded" / "planner.json"
BARS = {"vram p95": 0.05, "verdicts": 0.98, "verdicts near": 0.90, "best choice": 1.1, "ms": 100.0}


@dataclass
class Job:
    """What came out for one job."""

    name: str
    vram: list[float] = field(default_factory=list)
    """Errors of what the allocator reserves, the context included, where there is room."""
    tensors: list[float] = field(default_factory=list)
    """Errors of what tensors hold at most in the call, the context included."""
    ram: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    agree: list[bool] = field(default_factory=list)
    near: list[bool] = field(default_factory=list)
    false_fits: int = 0
    undecided: int = 0
    ratios: list[float] = field(default_factory=list)
    missed: int = 0
    ms: tuple[float, float] = (0.0, 0.0)
    runs: int = 0
    failed: list[str] = field(default_factory=list)
    old: int = 0
    worst: list[tuple[float, str]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One per run: what was said and what it needs, in GiB and seconds."""


def share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 1.0


def p95(values: Sequence[float]) -> float:
    ordered = sorted(abs(v) for v in values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))] if ordered else 0.0


def p50(values: Sequence[float]) -> float:
    return statistics.median([abs(v) for v in values]) if values else 0.0


def summary(found: Sequence[Job]) -> dict[str, Any]:
    """All jobs together, and which bars are reached."""
    vram, tensors, ram, seconds = (
        [v for j in found for v in getattr(j, what)] for what in ("vram", "tensors", "ram", "seconds")
    )
    ratios = [r for j in found for r in j.ratios]
    agree, near = share([a for j in found for a in j.agree]), share([a for j in found for a in j.near])
    ms = max((j.ms[0] for j in found), default=0.0)
    within = share([r <= BARS["best choice"] for r in ratios])
    return {
        "jobs": len(found),
        "runs": sum(j.runs for j in found),
        "runs of older sources": sum(j.old for j in found),
        "vram error": {"p50": round(p50(vram), 4), "p95": round(p95(vram), 4)},
        "tensors error": {"p50": round(p50(tensors), 4), "p95": round(p95(tensors), 4)},
        "ram error": {"p50": round(p50(ram), 4), "p95": round(p95(ram), 4)},
        "seconds error": {"p50": round(p50(seconds), 4), "p95": round(p95(seconds), 4)},
        "verdicts": round(agree, 4),
        "verdicts near": round(near, 4),
        "undecided": sum(j.undecided for j in found),
        "false fits": sum(j.false_fits for j in found),
        "of verdicts": sum(len(j.agree) for j in found),
        "of verdicts near": sum(len(j.near) for j in found),
        "best choice": {
            "cells": len(ratios),
            "median": round(statistics.median(ratios), 3) if ratios else None,
            "p95": round(p95(ratios), 3),
            "within 1.1": round(within, 4),
            "first did not fit": sum(j.missed for j in found),
        },
        "ms after a measurement": {
            "slowest": round(ms, 1),
            "again": round(max((j.ms[1] for j in found), default=0), 1),
        },
        "reached": {
            "vram p95": p95(vram) <= BARS["vram p95"],
            "verdicts": agree >= BARS["verdicts"],
            "verdicts near": near >= BARS["verdicts near"],
            "best choice": p95(ratios) <= BARS["best choice"],
            "ms": ms <= BARS["ms"],
        },
    }


def record(found: Sequence[Job]) -> None:
    """Keeps the summary, a line per job and a line per run."""
    content = {
        "summary": summary(found),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "loop": round(_loop(), 1),
        "jobs": {j.name: line(j) for j in found},
        "runs": {j.name: sorted(j.rows, key=lambda r: -abs(r["vram"][0] / r["vram"][1] - 1)) for j in found},
    }
    text = json.dumps(content, indent=1)
    RECORD.write_text(_flat(text) + "\n", encoding="utf-8")


def show() -> str:
    """The record as text."""
    content = json.loads(RECORD.read_text(encoding="utf-8"))
    lines = [json.dumps(content["summary"], indent=1)]
    for name, figures in content["jobs"].items():
        lines.append(f"{name}: " + ", ".join(f"{k} {v}" for k, v in figures.items()))
        lines += [
            f"    {r['vram'][0] / r['vram'][1] - 1:+.1%} {r['strategy']}: VRAM {r['vram'][0]} said, {r['vram'][1]} needed; "
            f"RAM {r['ram'][0]} / {r['ram'][1]} GiB; {r['seconds'][0]} / {r['seconds'][1]} s"
            for r in content["runs"][name]
        ]
    lines.append(
        f"three million additions take this machine {content['loop']} ms of processor time while it was measured"
    )
    return "\n".join(lines)


def line(job: Job) -> dict[str, Any]:
    """One job in a few figures."""
    return {
        "runs": job.runs,
        "not compared": len(job.failed),
        "vram p50": round(p50(job.vram), 3),
        "vram p95": round(p95(job.vram), 3),
        "tensors p95": round(p95(job.tensors), 3),
        "ram p95": round(p95(job.ram), 3),
        "seconds p95": round(p95(job.seconds), 3),
        "verdicts": round(share(job.agree), 4),
        "near": round(share(job.near), 4),
        "false fits": job.false_fits,
        "best choice": round(max(job.ratios, default=1.0), 2),
        "ms": round(job.ms[0], 1),
    }


def _flat(text: str) -> str:
    """Lists of numbers on one line each."""
    return re.sub(r"\[\s+([-\d.]+),\s+([-\d.]+)\s+\]", r"[\1, \2]", text)


def _loop() -> float:
    """Milliseconds of processor time for three million additions: how busy the machine was that timed the planner."""
    begun, total = time.process_time(), 0
    for i in range(3_000_000):
        total += i
    return (time.process_time() - begun) * 1e3
