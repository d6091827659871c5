"""The grader as a scorer of inspect_ai; ``inspect score LOG --scorer oomdoctor_evals/fit`` grades a log anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio.to_thread
from inspect_ai.scorer import Score, Scorer, Target, accuracy, grouped, scorer, stderr
from inspect_ai.solver import TaskState

from oomdoctor_evals.grader import grade
from oomdoctor_evals.inspection.answers import answer_in, transcript_of
from oomdoctor_evals.loader import load
from oomdoctor_evals.sim.simulator import Simulator
from oomdoctor_evals.values import Attempt


@scorer(  # type: ignore[untyped-decorator]  # inspect_ai is an extra that the type checker does not see
    metrics={"fit": [accuracy(), stderr(cluster="family"), grouped(accuracy(), "category")], "safe_fix": [accuracy()],
                 "false_fix": [accuracy()], "diagnosis": [accuracy()], "honest": [accuracy()]})  # fmt: skip
def fit() -> Scorer:
    """fit@1.25 and what goes with it."""

    async def score(state: TaskState, target: Target) -> Score:
        return await anyio.to_thread.run_sync(_score, state)

    return score


def _score(state: Any) -> Score:
    scenario = load(Path(state.metadata["folder"]))
    answer, why = answer_in(state.output.completion)
    attempt = Attempt(
        scenario=scenario.id, agent=str(state.model), answer=answer, error=why, transcript=transcript_of(state.messages)
    )
    with Simulator() as simulator:
        found = grade(scenario, attempt, simulator, epoch=int(state.epoch))
    value = {
        "fit": float(found.fit.get("1.25", False)),
        "safe_fix": float(found.safe_fix),
        "false_fix": float(found.false_fix),
        "diagnosis": float(found.diagnosis or 0.0),
        "honest": float(found.honest),
    }
    reasons = "; ".join(r for gate in found.gates for r in gate.reasons)
    return Score(value=value, answer=answer.verdict if answer else None, explanation=reasons or "passed",
                 metadata=found.model_dump(mode="json"))  # fmt: skip
