"""Grades of one agent in one table of figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from oomdoctor_evals.report.statistics import cluster_error, pass_k, wilson
from oomdoctor_evals.values import Grade

HEADLINE = "1.25"


def summary(grades: Sequence[Grade]) -> dict[str, Any]:
    """Everything that a report shows of one agent."""
    fits = [g.fit.get(HEADLINE, False) for g in grades]
    low, high = wilson(sum(fits), len(fits))
    return {
        "n": len(grades),
        "fit": {q: _share(grades, lambda g, q=q: g.fit.get(q, False)) for q in ("1.25", "2", "inf")},  # type: ignore[misc]
        "passed": sum(fits),
        "wilson95": [round(low, 4), round(high, 4)],
        "cluster_error": round(cluster_error([float(f) for f in fits], [g.family for g in grades]), 4),
        "pass_3": pass_k(_by_scenario(grades), 3),
        "safe_fix": _share(grades, lambda g: g.safe_fix),
        "false_fix": _share([g for g in grades if g.expected != "fixable"], lambda g: g.false_fix),
        "false_impossible": _share([g for g in grades if g.expected == "fixable"], lambda g: g.false_impossible),
        "died_verified": sum(g.died_verified for g in grades),
        "macro_fit": _macro(grades),
        "diagnosis": _mean(g.diagnosis for g in grades if g.diagnosis is not None),
        "peak_right": _share([g for g in grades if g.peak_right is not None], lambda g: bool(g.peak_right)),
        "diff_ok": _share([g for g in grades if g.diff_ok is not None], lambda g: bool(g.diff_ok)),
        "honest": _share(grades, lambda g: g.honest),
        "regret": _mean(g.regret for g in grades if g.regret is not None and g.safe_fix),
        "tool_calls": _mean(float(g.tool_calls) for g in grades),
        "seconds": _mean(g.agent_seconds for g in grades),
        "tokens": _mean(float(g.tokens) for g in grades if g.tokens is not None),
        "cost": _mean(g.cost for g in grades if g.cost is not None),
        "categories": {name: _group(group) for name, group in _grouped(grades, lambda g: g.category).items()},
        "families": {name: _group(group) for name, group in _grouped(grades, lambda g: g.family).items()},
        "gates": _gates(grades),
    }


def _share(grades: Sequence[Grade], test: Callable[[Grade], bool]) -> float | None:
    return round(sum(map(test, grades)) / len(grades), 4) if grades else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(sum(known) / len(known), 4) if known else None


def _grouped(grades: Iterable[Grade], key: Callable[[Grade], str]) -> dict[str, list[Grade]]:
    groups: dict[str, list[Grade]] = defaultdict(list)
    for grade in grades:
        groups[key(grade)].append(grade)
    return dict(sorted(groups.items()))


def _group(grades: list[Grade]) -> dict[str, Any]:
    passed = sum(g.fit.get(HEADLINE, False) for g in grades)
    return {"n": len(grades), "passed": passed, "fit": round(passed / len(grades), 4)}


def _macro(grades: Sequence[Grade]) -> float | None:
    return _mean(group["fit"] for group in (_group(g) for g in _grouped(grades, lambda g: g.category).values()))


def _by_scenario(grades: Sequence[Grade]) -> list[list[bool]]:
    return [[g.fit.get(HEADLINE, False) for g in group] for group in _grouped(grades, lambda g: g.scenario).values()]


def _gates(grades: Iterable[Grade]) -> dict[str, int]:
    """How often each gate was the reason."""
    failed: dict[str, int] = defaultdict(int)
    for grade in grades:
        for gate in grade.gates:
            failed[gate.name] += not gate.passed
    return dict(sorted(failed.items()))
