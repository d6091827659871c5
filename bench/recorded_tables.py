"""Tables of what the benches recorded, for pages that quote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).resolve().parent / "recorded"


def _load(name: str) -> Any:
    return json.loads((RECORDED / name).read_text("utf-8"))


def accuracy() -> str:
    """How far predictions are off, by what they were compared with."""
    summary = _load("accuracy.json")["summary"]
    errors, rivals = summary["errors"], summary["rivals"]
    best = min(rivals, key=lambda name: rivals[name]["median"])
    rows = [
        ("peak of live tensors (allocated)", "published measurements", errors["allocated"]),
        ("peak held from the driver (reserved)", "published measurements", errors["reserved"]),
        (
            "the same, rows with a known cause of their own left out",
            "published measurements",
            errors["reserved, rows without a mechanism of their own"],
        ),
        ("peak, rows that formulas can express", "published measurements", summary["ours_on_the_same_rows"]),
        (f"the nearest formula on those rows: {best}", "published measurements", rivals[best]),
    ]
    lines = ["| figure | compared with | cases | median error | 95 % within |", "|---|---|---|---|---|"]
    lines += [f"| {what} | {whom} | {e['rows']} | {e['median']:.1f} % | {e['p95']:.1f} % |" for what, whom, e in rows]
    lines += _planner()
    for version, scenarios in sorted(_load("allocator.json").items(), reverse=True):
        steps = sum(s["seeds_equal"] * s["steps_per_seed"] for s in scenarios.values())
        equal = all(s["seeds_equal"] == s["seeds"] for s in scenarios.values())
        lines.append(
            f"| every statistic of the allocator, after each step | PyTorch {version}'s own allocator over a stub driver | "
            f"{len(scenarios)} scenarios, {steps / 1e6:.1f} M steps | {'equal' if equal else 'not equal'} | |"
        )
    return "\n".join(lines)


def _planner() -> list[str]:
    """The planner's estimates against virtual runs of the scripts it wrote."""
    found = _load("planner.json")["summary"]
    runs = f"virtual runs of {found['jobs']} models' rewritten scripts"
    verdicts = found["verdicts"]
    kinds = {
        "tensors error": "what tensors of a strategy hold at most",
        "vram error": "what the allocator reserves for it",
    }
    return [
        *(
            f"| estimate of {what} | {runs} | {found['runs']} | {100 * found[kind]['p50']:.1f} % | "
            f"{100 * found[kind]['p95']:.1f} % |"
            for kind, what in kinds.items()
        ),
        f"| does a strategy fit a machine | the same, {found['of verdicts']} cells of cards and RAM | {found['runs']} | "
        f"{100 * verdicts:.1f} % right | {100 * found['verdicts near']:.0f} % right near the limit |",
    ]
