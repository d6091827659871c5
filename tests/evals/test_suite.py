"""The public scenarios: sound, varied, and not to be had by the recorded exploits or by habit."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.hardware import card
from oomdoctor_evals.agents import agent
from oomdoctor_evals.agents.bots import BOTS
from oomdoctor_evals.exploits import exploits
from oomdoctor_evals.generator.families import all_families
from oomdoctor_evals.grader import grade, static
from oomdoctor_evals.loader import load_all
from oomdoctor_evals.oracle.candidates import candidates
from oomdoctor_evals.values import Answer, Attempt, Observed, Scenario

SCENARIOS = load_all()
IDS = [s.id for s in SCENARIOS]
NEED_A_RUN = {
    "never_to_the_card", "fall_to_the_cpu", "two_steps", "smaller_picture", "fewer_pictures", "fewer_frames",
    "without_guidance", "stop_in_the_middle", "smaller_model", "without_the_adapter", "patch_torch",
}  # fmt: skip
"""Only a run tells these from an honest patch; ``test_exploits_that_must_be_run`` runs them."""


class NeedsRun(Exception):
    """The text alone did not decide."""


class NoRuns:
    """Stands for the simulator where nothing may need it."""

    def __getattr__(self, name: str) -> Any:
        raise NeedsRun(name)


class Recorded:
    """Stands for the simulator: every run ends well and does nothing."""

    def graded(self, source: str, machine: object) -> Observed:
        return Observed(outcome="ok", seconds=1.0)

    reference = graded


@pytest.mark.parametrize("scenario", SCENARIOS, ids=IDS)
def test_a_scenario_is_sound_as_a_text(scenario: Scenario) -> None:
    ast.parse(scenario.script)
    assert card(scenario.machine.gpu).name == scenario.machine.gpu
    assert scenario.evidence["traceback"].strip()
    for name, source in scenario.witnesses.items():
        assert not list(static.broken(scenario.script, source)), name
    if scenario.expected.verdict == "fixable":
        assert scenario.expected.best is not None and scenario.expected.best.answer in scenario.witnesses
    for text in scenario.evidence.values():
        assert "oomdoctor" not in text and "/work/" not in text and "virtual" not in text.lower()


def test_the_suite_is_varied() -> None:
    verdicts = Counter(s.expected.verdict for s in SCENARIOS)
    assert verdicts["impossible"] >= 2 and verdicts["not_oom"] >= 1
    assert sum(s.provenance.kind == "issue" for s in SCENARIOS) * 3 >= len(SCENARIOS)
    assert all(s.expected.verdict != "impossible" or s.twin for s in SCENARIOS), (
        "an impossible one needs a feasible twin"
    )
    assert len({s.public_id for s in SCENARIOS}) == len(SCENARIOS)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=IDS)
def test_exploits_are_stopped_by_their_text_or_known_to_need_a_run(scenario: Scenario) -> None:
    for name, cheat in exploits().items():
        answer = cheat.answer(scenario)
        if answer is None:
            continue
        try:
            found = grade(scenario, Attempt(scenario=scenario.id, agent=name, answer=answer), NoRuns())  # type: ignore[arg-type]
        except NeedsRun:
            assert name in NEED_A_RUN, f"{name} on {scenario.id} is decided by a run only"
        else:
            assert not found.fit["1.25"], f"{name} scores on {scenario.id}"


@pytest.mark.parametrize("name", ["always_impossible", "noop"])
def test_bots_that_do_nothing_stay_below_their_ceiling(name: str) -> None:
    """Also under a simulator that lets everything pass: they gain nothing from a lenient card."""
    passed = 0
    for scenario in SCENARIOS:
        attempt = agent(name).attempt(scenario)
        passed += grade(scenario, attempt, Recorded()).fit["1.25"]  # type: ignore[arg-type]
    assert passed <= {"always_impossible": 0.30, "noop": 0.10}[name] * len(SCENARIOS)


def test_every_bot_writes_python_for_every_scenario() -> None:
    for make in BOTS.values():
        for scenario in SCENARIOS:
            answer = make().attempt(scenario).answer
            assert answer is not None
            if answer.patched_script is not None:
                ast.parse(answer.patched_script)


def test_an_empty_answer_and_no_answer_score_nothing() -> None:
    for scenario in SCENARIOS:
        for attempt in (
            Attempt(scenario=scenario.id, agent="a"),
            Attempt(scenario=scenario.id, agent="a", answer=Answer(verdict="fixable")),
            Attempt(scenario=scenario.id, agent="a", answer=Answer(verdict="fixable", patched_script="")),
            Attempt(scenario=scenario.id, agent="a", answer=Answer(verdict="impossible")),
        ):
            assert not grade(scenario, attempt, NoRuns()).fit["1.25"]  # type: ignore[arg-type]


def test_the_oracle_scores_where_no_run_is_needed() -> None:
    for scenario in SCENARIOS:
        if scenario.expected.verdict == "fixable":
            continue
        attempt = agent("oracle").attempt(scenario)
        found = grade(scenario, attempt, NoRuns())  # type: ignore[arg-type]
        assert found.fit["1.25"] and found.diagnosis == 1.0


def test_families_draw_and_their_answers_are_python() -> None:
    for family in all_families():
        public, drawn = family.draw(None), family.draw("a seed that nobody knows")
        assert family.draw("a seed that nobody knows") == drawn
        for knobs in (public, drawn):
            source = family.text(knobs)
            ast.parse(source)
            for candidate in candidates(family, source):
                ast.parse(candidate.source)


def test_the_grader_does_not_know_the_planner() -> None:
    folder = Path(static.__file__).parents[1]
    for part in ("grader", "oracle", "sim"):
        for path in (folder / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    assert not name.startswith(("oomdoctor.planner", "oomdoctor.techniques", "oomdoctor.rewrite",
                                                "oomdoctor.doctor", "oomdoctor.diagnosis")), f"{path}: {name}"  # fmt: skip
