"""The whole suite graded by today's grader, from runs that were recorded: ceilings of the bots, the oracle, the agent.

``oom-doctor evals record`` writes the runs; how the virtual card answers today is for the tests of real runs.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from oomdoctor.errors import InputError
from oomdoctor_evals.agents import agent
from oomdoctor_evals.agents.bots import BOTS
from oomdoctor_evals.grader import grade
from oomdoctor_evals.loader import load_all
from oomdoctor_evals.recording import RUNS, recorded, wrong_answers
from oomdoctor_evals.sim.recorded import NotRecorded, Recorded, Recorder
from oomdoctor_evals.values import Attempt, Grade

RESULTS = Path(__file__).parents[2] / "evals" / "results"
CEILINGS = {**dict.fromkeys(BOTS, 0.30), "kitchen_sink": 0.05, "noop": 0.10}
SCENARIOS = load_all()
KNOWN = {s.id: s for s in SCENARIOS}
SIMULATOR, ATTEMPTS = recorded(RESULTS)


def graded(attempts: list[Attempt]) -> list[Grade]:
    return [grade(KNOWN[a.scenario], a, SIMULATOR) for a in attempts]


def of_agent(name: str) -> list[Grade]:
    player = agent(name)
    return graded([player.attempt(s) for s in SCENARIOS])


@pytest.mark.parametrize("name", sorted(BOTS))
def test_no_habit_scores(name: str) -> None:
    grades = of_agent(name)
    share = sum(g.fit["1.25"] for g in grades) / len(grades)
    assert share <= CEILINGS[name], [g.scenario for g in grades if g.fit["1.25"]]


def test_the_oracle_scores_everywhere() -> None:
    failed = {g.scenario: g.gates for g in of_agent("oracle") if not g.fit["1.25"]}
    assert not failed


def test_the_tools_carry_the_information() -> None:
    """The scripted agent: at least 38 of 40, no false fix, nothing called verified that then dies."""
    epochs: dict[str, list[Grade]] = defaultdict(list)
    for found in graded([a for a in ATTEMPTS if a.agent == "scripted"]):
        epochs[found.scenario].append(found)
    assert set(epochs) == set(KNOWN)
    passed = {name for name, grades in epochs.items() if all(g.fit["1.25"] for g in grades)}
    assert len(passed) >= 0.95 * len(KNOWN), sorted(set(KNOWN) - passed)
    everything = [g for grades in epochs.values() for g in grades]
    assert not any(g.false_fix or g.died_verified or not g.honest for g in everything)


def test_wrong_answers_and_exploits_score_nothing() -> None:
    judged = 0
    for scenario, attempt in wrong_answers(SCENARIOS):
        try:
            found = grade(scenario, attempt, SIMULATOR)
        except NotRecorded:
            continue
        judged += 1
        assert not found.fit["1.25"], f"{attempt.agent} scores on {scenario.id}"
    assert judged >= len(SCENARIOS)


def test_what_was_not_run_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(NotRecorded, match="rtx-3060-12gb"):
        Recorded(RESULTS / RUNS).get({"source": "pass", "gpu": "rtx-3060-12gb"}, "")
    with pytest.raises(InputError, match="evals record"):
        Recorded(tmp_path / "nothing.json.gz")


def test_the_same_runs_are_written_as_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        kept = Recorder(None)
        for gpu in ("t4-16gb", "l4-24gb") if name == "a" else ("l4-24gb", "t4-16gb"):
            kept.put({"gpu": gpu}, "1", {"outcome": "oom", "error": "x" * 5000})
        kept.write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len(str(Recorded(tmp_path / "a").get({"gpu": "t4-16gb"}, ""))) < 1000
