"""``compute_strategies`` and ``estimate``: from a measurement and a machine to the few strategies worth showing."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, get_args

from oomdoctor.errors import InputError
from oomdoctor.planner.choices import Choice, choices_of, context_of, offer
from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.fit import estimate_of, on_machine
from oomdoctor.planner.multi_gpu import VRAM_DOES_NOT_ADD_UP, spreadings
from oomdoctor.planner.rank import EASE_ABOVE, allowed, order, pareto, shown
from oomdoctor.planner.rules import Prefer, Rules
from oomdoctor.planner.sentences import reasons_for, summary_of
from oomdoctor.planner.space import Candidate, evaluate, explore, hastened
from oomdoctor.planner.unlock import unlocks
from oomdoctor.techniques import check
from oomdoctor.techniques.base import Context, Group, Technique
from oomdoctor.values import Card, Diagnosis, Estimate, Measurement, Plan, Script, Strategy, StrategyOption, Target

_evaluators: dict[int, tuple[weakref.ref[Measurement], dict[str, Evaluator]]] = {}


def evaluator_for(measurement: Measurement, target: Target) -> Evaluator:
    """The evaluator of a measurement on a card; kept as long as the measurement lives."""
    key = id(measurement)
    known = _evaluators.get(key)
    if known is None or known[0]() is not measurement:
        known = _evaluators[key] = (weakref.ref(measurement, partial(_forget, key)), {})
    card = target.card
    name = card.model_dump_json()
    evaluator = known[1].get(name)
    if evaluator is None:
        index = next((e.index for e in known[1].values()), None)
        evaluator = known[1][name] = Evaluator(measurement, card, _timed_on(measurement), index)
    return evaluator


def _forget(key: int, _: object, evaluators: dict[int, Any] = _evaluators) -> None:
    evaluators.pop(key, None)


def _timed_on(measurement: Measurement) -> Card | None:
    if measurement.timed_on is None:
        return None
    from oomdoctor.hardware.gpus.catalogue import cards

    return next((c for c in cards() if c.name == measurement.timed_on), None)


def compute_strategies(
    measurement: Measurement,
    target: Target,
    *,
    script: Script | None = None,
    diagnosis: Diagnosis | None = None,
    prefer: Prefer = "balanced",
    rules: Rules = Rules(),  # noqa: B008 - a frozen value
    limit: int = 6,
    detail: bool = False,
    front: bool = False,
    techniques: Iterable[Technique] | None = None,
) -> Plan:
    """The strategies that fit, best first, at most ``limit``, each different in kind.

    ``measurement`` is of one call with everything on an unlimited card; ``target`` is judged by its *free* memory.
    ``diagnosis``: what the error message said; some cures are for one kind of it only.
    ``detail`` adds every reason why a technique is not offered; ``front`` the whole Pareto front over card memory,
    seconds, quality and host memory. Nothing is run: each option is marked ``estimated``.

    Raises :class:`InputError` for an unknown preference or a measurement without components.
    """
    if prefer not in get_args(Prefer):
        raise InputError(f"{prefer!r} is not a preference; use one of {', '.join(get_args(Prefer))}")
    if limit < 1:
        raise InputError("at least one strategy must be asked for; use a limit of 1 or more")
    evaluator = evaluator_for(measurement, target)
    context = context_of(measurement, target, script, diagnosis)
    techniques = None if techniques is None else tuple(techniques)
    offered = offer(context, rules, techniques)
    space = explore(evaluator, offered.choices, target, EASE_ABOVE[prefer])
    resident = space.candidates[0].figures.seconds
    fitting = allowed(space.candidates, rules, resident)
    if any(c.restores for c in offered.choices):
        # What was measured is the script without something that costs memory; as it stands it is not among the options.
        fitting = [c for c in fitting if c.choices]
    if prefer == "speed":
        best = shown(fitting, prefer, target, limit)
        fitting += [f for c in best for f in hastened(evaluator, c, offered.choices, target)]
    legal = _legal(fitting, prefer, target, limit, context)
    options = tuple(_option(c, evaluator, target, resident) for c in legal)
    best = [c for c in pareto(fitting) if not check(c.strategy, context)] if front else []
    spread = spreadings(evaluator, target)

    def fitting_under(others: Rules) -> list[Candidate]:
        found = explore(evaluator, offer(context, others, techniques).choices, target).candidates
        return [c for c in allowed(found, others, resident) if not check(c.strategy, context)]

    return Plan(
        strategies=options,
        none_fits=not options,
        unlock=() if options else unlocks(evaluator, space.candidates, target, rules, prefer, fitting_under),
        considered=space.size,
        fitting=len(fitting),
        illegal=offered.illegal if detail else {},
        pareto=tuple(_option(c, evaluator, target, resident) for c in best),
        spreadings=spread,
        notes=(*space.notes, *([VRAM_DOES_NOT_ADD_UP] if spread else [])),
    )


def estimate(strategy: Strategy, measurement: Measurement, target: Target, script: Script | None = None) -> Estimate:
    """What one strategy costs on the target.

    Raises :class:`UnknownStrategy` for names that do not exist and :class:`NotApplicable` when it is not legal here.
    """
    evaluator = evaluator_for(measurement, target)
    context = context_of(measurement, target, script)
    chosen = choices_of(strategy, context)
    figures = on_machine(evaluator.figures(e for c in chosen for e in c.effects), target)
    return estimate_of(evaluator, figures, chosen, target, evaluator.resident_seconds)


def option_of(
    strategy: Strategy, measurement: Measurement, target: Target, script: Script | None = None
) -> StrategyOption:
    """One strategy as the list would show it, whether it fits or not.

    Raises :class:`UnknownStrategy` when it does not parse and :class:`NotApplicable` when it is not legal here.
    """
    evaluator = evaluator_for(measurement, target)
    chosen = choices_of(strategy, context_of(measurement, target, script))
    candidate = evaluate(evaluator, tuple(chosen), target)
    return _option(candidate, evaluator, target, evaluator.resident_seconds)


def _legal(
    fitting: Sequence[Candidate], prefer: Prefer, target: Target, limit: int, context: Context
) -> list[Candidate]:
    """The ones to show, of which the techniques' own rules about combinations allow each."""
    pool = sorted(fitting, key=order(prefer, target, fitting))
    while True:
        top = shown(pool, prefer, target, limit)
        refused = [c for c in top if check(c.strategy, context)]
        if not refused:
            return top
        pool = [c for c in pool if c not in refused]


def _option(candidate: Candidate, evaluator: Evaluator, target: Target, resident: float) -> StrategyOption:
    chosen = candidate.choices
    value = estimate_of(evaluator, candidate.figures, chosen, target, resident)
    return StrategyOption(
        id=candidate.strategy.id,
        strategy=candidate.strategy,
        estimate=value,
        group=_group(chosen),
        summary=summary_of(candidate, value),
        reasons=reasons_for(candidate, target),
    )


def _group(chosen: Sequence[Choice]) -> Group:
    if not chosen:
        return "plain"
    groups: tuple[Group, ...] = ("quantisation", "offloading / casting")
    return next((name for name in groups if any(c.group == name for c in chosen)), "other")
