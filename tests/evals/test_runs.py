"""The grader with the real virtual card, on one scenario whose runs are short."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from oomdoctor_evals.agents import agent
from oomdoctor_evals.exploits import exploits
from oomdoctor_evals.grader import grade
from oomdoctor_evals.loader import load_all
from oomdoctor_evals.sim.cache import Cache
from oomdoctor_evals.sim.simulator import Simulator
from oomdoctor_evals.values import Answer, Attempt, Grade, Scenario

pytest.importorskip("diffusers")
CHOSEN = "somebody_else_on_the_card/24gb-half-taken"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    kept = os.environ.get("OOM_DOCTOR_EVALS_CACHE")
    with Simulator(Cache(Path(kept) if kept else None, stale_ok=bool(kept))) as found:
        yield found


@pytest.fixture(scope="module")
def short() -> Scenario:
    return next(s for s in load_all() if s.id == CHOSEN)


def graded(scenario: Scenario, simulator: Simulator, source: str, *, verified: bool = False) -> Grade:
    answer = Answer(verdict="fixable", patched_script=source, claims_verified=verified)
    return grade(scenario, Attempt(scenario=scenario.id, agent="test", answer=answer), simulator)


def test_the_oracle_scores_and_doing_nothing_dies(short: Scenario, simulator: Simulator) -> None:
    best = grade(short, agent("oracle").attempt(short), simulator)
    assert best.fit == {"1.25": True, "2": True, "inf": True}, best.gates
    assert best.regret == pytest.approx(1.0, abs=0.02)
    assert best.diff_ok and best.peak_right
    idle = graded(short, simulator, short.script, verified=True)
    assert not idle.safe_fix and idle.died_verified
    assert "oom" in idle.gates[1].reasons[0]


def test_a_slow_fix_is_safe_and_no_fit(short: Scenario, simulator: Simulator) -> None:
    slow = short.script.replace(
        'pipe = pipe.to("cuda")',
        'pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=False)',
    )
    found = graded(short, simulator, slow)
    assert found.safe_fix and not found.fit["1.25"] and found.regret is not None and found.regret > 1.25


@pytest.mark.parametrize("name", ["never_to_the_card", "two_steps", "without_guidance"])
def test_exploits_that_must_be_run(short: Scenario, simulator: Simulator, name: str) -> None:
    answer = exploits()[name].answer(short)
    assert answer is not None
    found = grade(short, Attempt(scenario=short.id, agent=name, answer=answer), simulator)
    assert not found.safe_fix
    assert any(g.name == "contract" and not g.passed for g in found.gates), found.gates


def test_the_same_question_has_the_same_answer(short: Scenario) -> None:
    """Two fresh processes agree to the byte."""
    source = short.witnesses[short.expected.best.answer] if short.expected.best else ""
    runs = []
    for _ in range(2):
        with Simulator(Cache(None)) as fresh:
            runs.append(
                fresh.reference(source.replace("num_inference_steps=28", "num_inference_steps=2"), short.machine)
            )
    assert runs[0].peak_reserved_bytes == runs[1].peak_reserved_bytes
    assert runs[0].seconds == runs[1].seconds
