"""Several runs side by side as a table."""

from __future__ import annotations

from oomdoctor.rendering import table
from oomdoctor.report.text import VERDICTS
from oomdoctor.units import duration, gib
from oomdoctor.values import Comparison, ComparisonRow


def comparison_table(comparison: Comparison) -> str:
    """One line per run: does it fit, how much is left, where it is tightest."""
    several = len({row.script for row in comparison.rows}) > 1
    head = (["script"] if several else []) + [
        "card",
        "verdict",
        "VRAM GiB",
        "of",
        "left",
        "RAM GiB",
        "time",
        "tightest",
    ]
    rows = [([row.script] if several else []) + _cells(row) for row in comparison.rows]
    return table(head, rows)


def _cells(row: ComparisonRow) -> list[str]:
    trial = row.trial
    total = None if trial.usable_bytes is None else trial.usable_bytes + (trial.context_bytes or 0)
    verdict = VERDICTS[trial.outcome]
    if trial.outcome == "ok" and not row.fits:
        verdict = "too tight"
    elif trial.outcome != "ok" and trial.script_line:
        verdict += f", line {trial.script_line}"
    moment = trial.died or trial.peak
    tightest = "" if moment is None else " ".join(filter(None, (moment.stage.value, moment.component)))
    return [
        row.card,
        verdict,
        _size(trial.peak_vram_bytes),
        _size(total),
        _size(trial.headroom_bytes),
        _size(trial.peak_host_bytes),
        duration(trial.seconds) if trial.seconds is not None else "-",
        tightest,
    ]


def _size(n: int | None) -> str:
    return "-" if n is None else gib(n)
