"""``evals.json`` as the skill-creator reads it: prompts, files and expectations that a reader can check.

Format: anthropics/skills, skill-creator ``references/schemas.md`` (``skill_name`` and ``evals`` of ``id``, ``prompt``,
``expected_output``, ``files``, ``expectations``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oomdoctor_evals.values import Scenario

SKILL = "diffusers-oom-doctor"


def export(scenarios: Sequence[Scenario], folder: Path) -> Path:
    """Write ``evals.json`` and the files it names below ``folder``; returns the path of the former."""
    entries = []
    for number, scenario in enumerate(scenarios, 1):
        files = _files(scenario, folder)
        entries.append({"id": number, "prompt": prompt(scenario), "expected_output": _expected(scenario),
                        "files": files, "expectations": list(expectations(scenario))})  # fmt: skip
    path = folder / "evals.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"skill_name": SKILL, "evals": entries}, indent=1) + "\n", encoding="utf-8")
    return path


def prompt(scenario: Scenario) -> str:
    """What a person would say, without the files."""
    machine = scenario.machine
    cards = f"{machine.count} x {machine.gpu}" if machine.count > 1 else machine.gpu
    return (
        f"My diffusers script (script.py) fails on my machine: {cards}, {machine.ram_mib / 1024:g} GiB of RAM, "
        f"{machine.os}. The error is in traceback.txt. {scenario.preference.text} Give me a script that works here, "
        "or tell me honestly why there is none."
    )


def expectations(scenario: Scenario) -> list[str]:
    """Statements about a good answer, each checkable by itself."""
    verdict = scenario.expected.verdict
    truth = scenario.expected.truth
    if verdict == "impossible":
        ways = "; ".join(str(u.model_dump(exclude_none=True)) for u in scenario.expected.unlock)
        return [
            "Says that nothing fits under these conditions.",
            f"Names something that would make it possible: {ways}.",
        ]
    if verdict == "not_oom":
        return ["Says that memory is not the cause.", "Changes nothing about the memory of the script."]
    return [
        f"Says that it failed in {truth.phase}" + (f" ({truth.component})." if truth.component else "."),
        "The patched script makes the same pictures: model, size, steps, guidance, number and saved files are unchanged.",
        "The patched script runs within the card's memory and the machine's RAM (`oom-doctor run` ends with ok).",
        f"Keeps to the preference: {scenario.preference.text}",
        "Calls the patch verified only when it was run.",
    ]


def _expected(scenario: Scenario) -> str:
    best = scenario.expected.best
    if best is None:
        return f"Verdict: {scenario.expected.verdict}."
    return f"Verdict: fixable; the best known answer is {best.answer}, at {best.peak_mib} MiB."


def _files(scenario: Scenario, folder: Path) -> list[str]:
    names = []
    texts: dict[str, Any] = {"script.py": scenario.script} | {f"{k}.txt": v for k, v in scenario.evidence.items()}
    for name, text in texts.items():
        path = folder / "files" / scenario.public_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        names.append(str(path.relative_to(folder)))
    return names
