"""What people ask about one strategy besides its price: how large a job it can do, which card it needs, how it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oomdoctor.planner.choices import choices_of, context_of
from oomdoctor.planner.formulas import formulas
from oomdoctor.planner.inverse import card_bytes, largest_jobs, smallest_card
from oomdoctor.planner.plan import evaluator_for, option_of
from oomdoctor.planner.scenario import Scenario, scenario_of
from oomdoctor.planner.timeline import timeline
from oomdoctor.techniques.effects import Effect
from oomdoctor.values import Card, CardNeed, Formula, LargestJob, Measurement, Plan, Script, Strategy, Target


def symbols(measurement: Measurement, target: Target) -> tuple[Formula, ...]:
    """The symbols of the published memory calculators with their values for this pipeline."""
    return formulas(evaluator_for(measurement, target))


def largest(
    strategy: Strategy, measurement: Measurement, target: Target, script: Script | None = None
) -> tuple[LargestJob, ...]:
    """The largest resolution, frames and batch that fit the target; a dimension for which nothing fits is left out.

    Raises :class:`UnknownStrategy` and :class:`NotApplicable`.
    """
    evaluator = evaluator_for(measurement, target)
    return largest_jobs(evaluator, _effects(strategy, measurement, target, script), target)


def card_for_strategy(
    strategy: Strategy, measurement: Measurement, target: Target, cards: Sequence[Card], script: Script | None = None
) -> CardNeed:
    """What a card must have free for the strategy, and the smallest of ``cards`` that has it.

    Raises :class:`UnknownStrategy` and :class:`NotApplicable`.
    """
    evaluator = evaluator_for(measurement, target)
    effects = _effects(strategy, measurement, target, script)
    card = smallest_card(evaluator, effects, cards)
    context = target.card.context_bytes if card is None else card.context_bytes
    need = card_bytes(evaluator.figures(effects), context)
    if card is None:
        return CardNeed(bytes=need)
    return CardNeed(bytes=need, card=card.name, label=card.label, total_bytes=card.total_bytes)


def picture(
    strategy: Strategy, measurement: Measurement, target: Target, file: Path, script: Script | None = None
) -> None:
    """Draws the card's memory over one call under the strategy into ``file``, a PNG.

    Raises :class:`InputError` where that cannot be written or matplotlib is missing, :class:`UnknownStrategy` and
    :class:`NotApplicable`.
    """
    from oomdoctor.planner.picture import check, draw

    check(file)
    evaluator = evaluator_for(measurement, target)
    scenario: Scenario = scenario_of(_effects(strategy, measurement, target, script))
    title = f"{measurement.model} with {strategy.id} on {target.card.label}"
    draw(
        timeline(evaluator, scenario), file, title,
        figures=evaluator.fold(scenario), context_bytes=target.card.context_bytes, capacity=target.vram_bytes,
    )  # fmt: skip


def answered(
    plan: Plan, measurement: Measurement, target: Target, *, script: Script | None = None,
    about: Strategy | None = None, jobs: bool = False, cards: Sequence[Card] | None = None, sizes: bool = False,
) -> Plan:  # fmt: skip
    """The plan with the answers that were asked for.

    ``about``: the strategy they are about; None means the best one that fits, or the script as it is where none does.
    ``jobs``: the largest jobs; ``cards``: the smallest of them that runs it (without ``about``: that runs the script
    as it is); ``sizes``: the symbols of the calculators.
    """
    changes: dict[str, object] = {}
    best = plan.strategies[0].strategy if plan.strategies else Strategy()
    if about is not None or jobs:
        changes["subject"] = option_of(about or best, measurement, target, script)
    if jobs:
        found = changes["largest"] = largest(about or best, measurement, target, script)
        if not found:
            who = (about or best).id
            changes["notes"] = (*plan.notes, f"with {who} not even the smallest picture, frames or batch fit")
    if cards is not None:
        changes["smallest_card"] = card_for_strategy(about or Strategy(), measurement, target, cards, script)
    if sizes:
        changes["formulas"] = symbols(measurement, target)
    return plan.model_copy(update=changes)


def _effects(
    strategy: Strategy, measurement: Measurement, target: Target, script: Script | None
) -> tuple[Effect, ...]:  # fmt: skip
    chosen = choices_of(strategy, context_of(measurement, target, script))
    return tuple(e for c in chosen for e in c.effects)
