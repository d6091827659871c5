"""How much slower than the best that the search found."""

from __future__ import annotations

import math

from oomdoctor_evals.values import Best, Observed

LEVELS = {"1.25": 1.25, "2": 2.0, "inf": math.inf}


def regret(best: Best | None, answer: Observed) -> float | None:
    """Seconds of the answer over seconds of the best; None when there is nothing to compare."""
    if best is None or answer.seconds is None or best.seconds <= 0:
        return None
    return answer.seconds / best.seconds


def fits(safe: bool, value: float | None) -> dict[str, bool]:
    """fit@q for each q."""
    return {name: safe and (value is None or value <= limit) for name, limit in LEVELS.items()}
