"""Scenario folders -> scenarios. A folder that is not sound is named with what is wrong, never skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oomdoctor.errors import InputError
from pydantic import ValidationError

from oomdoctor_evals.generator.build import public_id
from oomdoctor_evals.values import CATEGORIES, Scenario

SCENARIOS = Path(__file__).parent / "scenarios"


def load_all(root: Path | None = None) -> tuple[Scenario, ...]:
    """Every scenario below ``root`` (default: the public ones), by id. Raises :class:`InputError`."""
    root = root or SCENARIOS
    found = tuple(load(path.parent) for path in sorted(root.glob("*/*/scenario.json")))
    if not found:
        raise InputError(f"There is no scenario in {root}: none of its folders holds family/variant/scenario.json.")
    ids = {s.id for s in found}
    for scenario in found:
        if scenario.twin is not None and scenario.twin not in ids:
            raise InputError(f"{scenario.id}: its twin {scenario.twin} does not exist.")
    return found


def load(folder: Path) -> Scenario:
    """One folder. Raises :class:`InputError` with the file and what is wrong with it."""
    name = f"{folder.parent.name}/{folder.name}"
    try:
        meta: dict[str, Any] = json.loads((folder / "scenario.json").read_text(encoding="utf-8"))
        script = (folder / "script.py").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: {error}. A scenario is a folder with scenario.json and script.py.") from None
    try:
        scenario = Scenario.model_validate(
            {
                **meta, "id": name, "public_id": public_id(name), "script": script, "folder": folder,
                "evidence": _texts(folder / "evidence", ".txt"),
                "witnesses": _texts(folder / "pass", ".py"), "wrong": _texts(folder / "fail", ".py"),
            }
        )  # fmt: skip
    except ValidationError as error:
        raise InputError(f"{folder / 'scenario.json'}: {error}") from None
    for problem in problems(scenario):
        raise InputError(f"{folder}: {problem}")
    return scenario


def problems(scenario: Scenario) -> Iterator[str]:
    """What a scenario lacks to be of use."""
    if scenario.category not in CATEGORIES:
        yield f"category {scenario.category!r} is none of {', '.join(CATEGORIES)}"
    if "traceback" not in scenario.evidence:
        yield "evidence/traceback.txt is missing"
    if scenario.provenance.kind == "issue" and not scenario.provenance.url:
        yield "an issue needs its url"
    verdict = scenario.expected.verdict
    if verdict == "fixable" and (scenario.expected.best is None or not scenario.witnesses or not scenario.wrong):
        yield "a fixable scenario needs the best answer, a witness in pass/ and a wrong answer in fail/"
    if verdict == "impossible" and not scenario.expected.unlock:
        yield "an impossible scenario needs something that would unlock it"
    if verdict != "fixable" and scenario.expected.best is not None:
        yield f"a scenario that is {verdict} has no best answer"


def _texts(folder: Path, suffix: str) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    return {p.name.removesuffix(suffix): p.read_text(encoding="utf-8") for p in sorted(folder.glob(f"*{suffix}"))}
