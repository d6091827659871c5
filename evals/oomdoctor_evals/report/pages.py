"""report.json, report.md and report.html from the results of one or more runs."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oomdoctor_evals.report.store import Results
from oomdoctor_evals.report.text import HEAD, headline, markdown, share
from oomdoctor_evals.values import Attempt, Grade

WORST = 5
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}td,th{border:1px solid #ccc;padding:.25rem .6rem;
text-align:left;vertical-align:top}th{background:#f3f3f3}pre{background:#f6f6f6;padding:.7rem;overflow-x:auto;font-size:13px}
.yes{background:#e2f4e2}.no{background:#fae0e0}summary{cursor:pointer}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#16181b}td,th{border-color:#444}th,pre{background:#23262b}
.yes{background:#1d3b22}.no{background:#4a2023}}"""


def write_pages(runs: Sequence[Results], folder: Path) -> list[Path]:
    """Write the three files; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "report.json": json.dumps(data(runs), indent=1),
        "report.md": as_markdown(runs),
        "report.html": as_html(runs),
    }
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in pages]


def data(runs: Sequence[Results]) -> dict[str, Any]:
    """Everything in figures."""
    return {
        "runs": [
            {"agent": r.agent, "condition": r.condition, "made": r.made, "simulator": r.simulator, "versions": r.versions,
             "agreement": r.agreement, "summary": r.summary, "grades": [g.model_dump(mode="json") for g in r.grades]}
            for r in runs
        ],
    }  # fmt: skip


def as_markdown(runs: Sequence[Results]) -> str:
    """A page to read."""
    parts = ["# OOM Doctor evals", "", _measured(runs), ""]
    parts.append(markdown(["agent", "condition", *HEAD], [[r.agent, r.condition, *headline(r.summary)] for r in runs]))
    parts += ["", "## By category (fit@1.25)", "", markdown(*_categories(runs))]
    for run in runs:
        worst = _worst(run)
        parts += ["", f"## {run.agent}: worst families", ""] if worst else []
        for family, failures in worst:
            parts.append(f"- **{family}**")
            parts += [f"  - {g.scenario}: {_why(g)}" for g in failures]
    return "\n".join([*parts, "", NOTE, ""])


NOTE = (
    "A run with the `scripted` agent shows that the tools carry the information, not that a model makes use of it. "
    "The grader shares its virtual card with the tools; only runs on real cards tell how right that card is."
)


def _measured(runs: Sequence[Results]) -> str:
    first = runs[0]
    known = ", ".join(f"{name} {version}" for name, version in first.versions.items() if version)
    agreement = (
        f"agreement with real cards: {json.dumps(first.agreement)}"
        if first.agreement
        else "agreement with real cards: not measured for this version"
    )
    return f"Simulator {', '.join(sorted({r.simulator for r in runs}))} ({known}; Python {first.python}); {agreement}."


def _categories(runs: Sequence[Results]) -> tuple[list[str], list[list[str]]]:
    figures = [r.summary["categories"] for r in runs]
    names = sorted(set().union(*figures))
    rows = [[n, *(f"{f[n]['passed']}/{f[n]['n']}" if n in f else "-" for f in figures)] for n in names]
    return ["category", *(f"{r.agent} ({r.condition})" for r in runs)], rows


def _worst(run: Results) -> list[tuple[str, list[Grade]]]:
    families = sorted(run.summary["families"].items(), key=lambda item: (item[1]["fit"], item[0]))
    failed = {f: [g for g in run.grades if g.family == f and not g.fit.get("1.25")] for f, _ in families[:WORST]}
    return [(family, grades) for family, grades in failed.items() if grades]


def _why(grade: Grade) -> str:
    reasons = [f"{g.name}: {'; '.join(g.reasons)}" for g in grade.gates if not g.passed]
    if not reasons and grade.regret is not None:
        reasons = [f"takes {grade.regret:.2f} times as long as the best"]
    return " / ".join(reasons) or "passed"


def as_html(runs: Sequence[Results]) -> str:
    """One file that needs nothing else."""
    body = ["<h1>OOM Doctor evals</h1>", f"<p>{html.escape(_measured(runs))}</p>"]
    body.append(_table(["agent", "condition", *HEAD], [[r.agent, r.condition, *headline(r.summary)] for r in runs]))
    body += ["<h2>By category (fit@1.25)</h2>", _table(*_categories(runs))]
    for run in runs:
        body += [f"<h2>{html.escape(run.agent)}</h2>", _scenarios(run)]
        attempts = {a.scenario: a for a in run.attempts}
        for family, failures in _worst(run):
            body.append(f"<h3>{html.escape(family)}</h3>")
            body += [_transcript(g, attempts.get(g.scenario)) for g in failures]
    body.append(f"<p>{html.escape(NOTE)}</p>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>OOM Doctor evals</title><style>{_STYLE}</style>{''.join(body)}</html>\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _scenarios(run: Results) -> str:
    rows = "".join(
        f'<tr class="{"yes" if g.fit.get("1.25") else "no"}"><td>{html.escape(g.scenario)}</td><td>{g.category}</td>'
        f"<td>{g.expected}</td><td>{g.verdict or '-'}</td><td>{'-' if g.regret is None else f'{g.regret:.2f}'}</td>"
        f"<td>{share(g.diagnosis)}</td><td>{html.escape(_why(g))}</td></tr>"
        for g in run.grades
    )
    head = "".join(f"<th>{h}</th>" for h in ("scenario", "category", "expected", "said", "regret", "diagnosis", "why"))
    return f"<table><tr>{head}</tr>{rows}</table>"


def _transcript(grade: Grade, attempt: Attempt | None) -> str:
    text = json.dumps(attempt.model_dump(mode="json"), indent=1)[:20_000] if attempt else "no transcript"
    return (
        f"<details><summary>{html.escape(grade.scenario)}: {html.escape(_why(grade))}</summary>"
        f"<pre>{html.escape(text)}</pre></details>"
    )
