"""Impossible and not-memory scenarios: the right exit, with something true to go on with."""

from __future__ import annotations

from collections.abc import Iterator

from oomdoctor_evals.values import Answer, Scenario, Unlock

_MOST = 1.6
"""An unlock may ask for at most this much more than what is known to be enough: "buy an H100" helps nobody."""
_LEAST = 0.97


def broken_impossible(scenario: Scenario, answer: Answer) -> Iterator[str]:
    """Why an answer to an impossible scenario does not count."""
    if answer.verdict != "impossible":
        yield f"says {answer.verdict}, and nothing fits"
        return
    if not answer.unlock:
        yield "does not say what would make it possible"
    elif not any(_true(claim, known) for claim in answer.unlock for known in scenario.expected.unlock):
        known = "; ".join(str(u.model_dump(exclude_none=True)) for u in scenario.expected.unlock)
        yield f"none of what it says would make it possible is so (what does: {known})"


def _true(claim: Unlock, known: Unlock) -> bool:
    if claim.rule is not None:
        return claim.rule == known.rule
    for name in ("vram_mib", "ram_mib"):
        said, needed = getattr(claim, name), getattr(known, name)
        if said is not None and needed is not None and needed * _LEAST <= said <= needed * _MOST:
            return True
    return False
