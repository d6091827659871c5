"""What would make an impossible scenario possible: measured, one change at a time."""

from __future__ import annotations

import math
from typing import Literal

from oomdoctor.hardware import card

from oomdoctor_evals.oracle.candidates import Candidate
from oomdoctor_evals.sim.simulator import LESS_VRAM, Simulator
from oomdoctor_evals.values import MIB, Machine, Observed, Rules, Unlock

_PLENTY_RAM_MIB = 1 << 20
TRIED = 3
"""Candidates per question: the ways of placing that the search found nearest come first."""
_Rule = Literal["quality", "quantise", "max_slowdown", "new_packages"]


def unlocks(
    simulator: Simulator,
    candidates: list[Candidate],
    machine: Machine,
    rules: Rules,
    failed: list[Observed],
    resident_seconds: float | None,
) -> tuple[Unlock, ...]:
    """More RAM, more card memory, or one rule less, where that helps. ``failed``: what the search's runs ended with."""
    usable = [c for c in candidates if c.allowed(rules) and c.placement != "sequential"]
    out: list[Unlock] = []
    if any((run.error or "").startswith("Killed") for run in failed):
        out += _more_ram(simulator, usable, machine)
    limit = rules.max_slowdown * resident_seconds if rules.max_slowdown and resident_seconds else None
    out += _more_vram(simulator, usable, machine, limit)
    free = rules.model_copy(update={"max_slowdown": None})
    if rules.max_slowdown is not None and _any(simulator, usable, machine):
        out.append(Unlock(rule="max_slowdown"))
    relaxed: dict[_Rule, Rules] = {
        "quality": free.model_copy(update={"quality": "slight"}),
        "quantise": free.model_copy(update={"quality": "noticeable", "quantise": "allow"}),
    }
    for name, allowed in relaxed.items():
        if _any(simulator, [c for c in candidates if c.allowed(allowed) and not c.allowed(rules)], machine):
            out.append(Unlock(rule=name))
    return tuple(out)


def _more_ram(simulator: Simulator, usable: list[Candidate], machine: Machine) -> list[Unlock]:
    """The least RAM with which one of the ways of placing works; those that keep no page-locked copies need least."""
    roomy = machine.model_copy(update={"ram_mib": _PLENTY_RAM_MIB})
    thrifty = sorted(usable, key=lambda c: "stream" in c.name and "thrifty" not in c.name)[:TRIED]
    runs = [simulator.graded(c.source, roomy) for c in thrifty]
    peaks = [run.peak_host_bytes for run in runs if run.outcome == "ok"]
    return [Unlock(ram_mib=math.ceil(min(peaks) / MIB))] if peaks else []


def _more_vram(
    simulator: Simulator, usable: list[Candidate], machine: Machine, limit_seconds: float | None
) -> list[Unlock]:
    """The least card memory, above what is free now, with which one of the ways of placing keeps RAM and time."""
    free = card(machine.gpu).total_bytes - machine.used_by_others_mib * MIB
    needs = []
    for candidate in usable[:TRIED]:
        run = simulator.reference(candidate.source, machine)
        need = int(run.peak_vram_bytes / LESS_VRAM)
        late = limit_seconds is not None and (run.seconds or 0) > limit_seconds
        if run.outcome == "ok" and not late and need > free and run.peak_host_bytes <= machine.ram_mib * MIB:
            needs.append(need)
    return [Unlock(vram_mib=math.ceil(min(needs) / MIB))] if needs else []


def _any(simulator: Simulator, candidates: list[Candidate], machine: Machine) -> bool:
    """One of them fits; those that keep least on the card are tried first."""
    frugal = sorted(candidates, key=lambda c: c.placement not in ("leaf_stream", "block_stream"))
    return any(simulator.graded(c.source, machine).outcome == "ok" for c in frugal[:TRIED])
