"""The four answers of a diagnosis, each right or wrong, and the predicted peak."""

from __future__ import annotations

import math

from oomdoctor_evals.values import MIB, Answer, Observed, Truth

_SAME = {"load": "place", "quantize": "place"}
"""Loading straight onto the card and placing it are one phase to the person who reads."""


def score(truth: Truth, answer: Answer) -> float:
    """Share of phase, component, resource and root cause that is right."""
    said = answer.diagnosis
    right = [
        _phase(said.phase) == _phase(truth.phase),
        truth.component is None or said.component == truth.component,
        said.resource == truth.resource,
        said.root_cause == truth.root_cause,
    ]
    return sum(right) / len(right)


def peak_right(answer: Answer, run: Observed) -> bool | None:
    """Within 10 % of what the grader's own run showed; None when nothing was predicted."""
    said = answer.predicted.peak_vram_mib
    if said is None or said <= 0 or run.outcome != "ok":
        return None
    return abs(math.log(said * MIB / run.peak_vram_bytes)) <= math.log(1.10)


def _phase(name: str | None) -> str | None:
    return _SAME.get(name, name) if name else None
