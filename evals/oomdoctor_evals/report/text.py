"""Figures as plain text and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oomdoctor_evals.report.store import Results
from oomdoctor_evals.values import Grade


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]

    def text(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    return "\n".join([text(head), "  ".join("-" * w for w in widths), *map(text, rows)])


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join('---' for _ in head)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(c.replace('|', '/') for c in row)} |" for row in rows)])


def line(grade: Grade) -> str:
    """One grade in a line."""
    mark = "ok  " if grade.fit.get("1.25") else "slow" if grade.safe_fix else "FAIL"
    why = next((f"{g.name}: {g.reasons[0]}" for g in grade.gates if not g.passed), "")
    regret = f" regret {grade.regret:.2f}" if grade.regret is not None else ""
    return f"{mark} {grade.scenario}{regret} {why}".rstrip()


def share(value: float | None) -> str:
    """``0.95`` as ``95.0 %``."""
    return "-" if value is None else f"{100 * value:.1f} %"


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def headline(figures: dict[str, Any]) -> list[str]:
    """The cells of an agent's row in the main table."""
    low, high = figures["wilson95"]
    return [
        f"{share(figures['fit']['1.25'])} [{100 * low:.1f}, {100 * high:.1f}]",
        share(figures["pass_3"]),
        share(figures["safe_fix"]),
        share(figures["false_fix"]),
        share(figures["false_impossible"]),
        share(figures["diagnosis"]),
        share(figures["diff_ok"]),
        share(figures["honest"]),
        number(figures["regret"]),
        number(figures["tool_calls"], 1),
        number(figures["tokens"], 0),
        number(figures["cost"], 3),
        number(figures["seconds"], 1),
    ]


HEAD = ("fit@1.25 [95 %]", "pass^3", "safe fix", "false fix", "false impossible", "diagnosis", "diff", "honest",
        "regret", "calls", "tokens", "$", "s")  # fmt: skip


def overview(results: Results) -> str:
    """The summary of a run for a terminal."""
    figures = results.summary
    rows = [[name, f"{g['passed']}/{g['n']}"] for name, g in figures["categories"].items()]
    return "\n".join([
        f"{results.agent}: {figures['passed']} of {figures['n']} on fit@1.25", "",
        table(["agent", *HEAD], [[results.agent, *headline(figures)]]), "",
        table(["category", "fit@1.25"], rows),
    ])  # fmt: skip
