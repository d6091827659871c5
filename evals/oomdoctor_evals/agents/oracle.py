"""Knows the answers: must score 1.0, or the scenario or the grader is wrong."""

from __future__ import annotations

from oomdoctor_evals.values import Answer, Attempt, Predicted, Said, Scenario


class OracleAgent:
    """Gives the best answer of the search."""

    name = "oracle"

    def attempt(self, scenario: Scenario) -> Attempt:
        expected = scenario.expected
        truth = expected.truth
        said = Said(
            phase=truth.phase, component=truth.component, resource=truth.resource, root_cause=truth.root_cause
        )  # fmt: skip
        answer = Answer(
            verdict=expected.verdict,
            patched_script=scenario.witnesses[expected.best.answer] if expected.best else None,
            diagnosis=said,
            predicted=Predicted(peak_vram_mib=expected.best.peak_mib if expected.best else None),
            unlock=expected.unlock,
            explanation="As the search found.",
        )
        return Attempt(scenario=scenario.id, agent=self.name, answer=answer)
