"""Search the candidates for the fastest that runs under the hidden perturbations and keeps the rules."""

from __future__ import annotations

from dataclasses import dataclass, field

from oomdoctor_evals.oracle.candidates import PLACEMENTS, Candidate
from oomdoctor_evals.sim.simulator import Simulator
from oomdoctor_evals.values import MIB, Best, Machine, Observed, Rules

ORDER = ("extra", *PLACEMENTS)


@dataclass
class Found:
    """What the search saw: candidates that ran, those that did not, and which is best."""

    passed: list[tuple[Candidate, Observed]] = field(default_factory=list)
    failed: list[tuple[Candidate, Observed]] = field(default_factory=list)
    broken_rules: list[Candidate] = field(default_factory=list)

    @property
    def best(self) -> Best | None:
        """The fastest; None when nothing passed."""
        if not self.passed:
            return None
        winner, run = min(self.passed, key=lambda pair: (round(pair[1].seconds or 0, 3), pair[0].name))
        return Best(
            answer=winner.name, seconds=round(run.seconds or 0, 4), peak_mib=run.peak_vram_bytes // MIB,
            quality=winner.quality,
        )  # fmt: skip


def search(
    simulator: Simulator,
    candidates: list[Candidate],
    machine: Machine,
    rules: Rules,
    resident_seconds: float | None,
    *,
    dead: str = "",
) -> Found:
    """Try what the rules allow, ways of placing from the fastest on.

    A way of placing is not tried when a faster one already fits (whole on the card beats moving once, which beats
    moving in every step), and a milder measure that fits makes the same placement with a stronger one needless: both
    could only be slower. ``dead``: the script that is known to fail on that machine, which is not run again. Streams are all tried, for which of them is fastest is not known beforehand.
    """
    found = Found()
    usable = [c for c in candidates if c.allowed(rules) and c.source.strip() != dead.strip()]
    found.broken_rules = [c for c in candidates if not c.allowed(rules)]
    for placement in ORDER:
        group = [c for c in usable if c.placement == placement]
        if placement in ("leaf_stream_thrifty", "leaf", "block", "sequential") and found.passed:
            break
        fits: list[str] = []
        for candidate in group:
            if placement != "extra" and any(_weaker(name, candidate.name) for name in fits):
                continue
            run = simulator.graded(candidate.source, machine)
            limit = rules.max_slowdown * resident_seconds if rules.max_slowdown and resident_seconds else None
            late = limit is not None and (run.seconds or 0) > limit
            if run.outcome == "ok" and not late:
                found.passed.append((candidate, run))
                fits.append(candidate.name)
            else:
                found.failed.append((candidate, run))
        if placement == "resident" and fits:
            break
    return found


def _weaker(name: str, other: str) -> bool:
    """``name`` does less than ``other``: its parts are a proper subset."""
    return set(name.split("+")) < set(other.split("+"))
