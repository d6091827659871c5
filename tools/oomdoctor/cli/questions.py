"""``oom-doctor strategies``: what fits, and the questions around it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from oomdoctor import explain
from oomdoctor.cli import answers
from oomdoctor.cli.inputs import doctor_for, job_of, rules_of
from oomdoctor.cli.output import show
from oomdoctor.errors import InputError, NotApplicable
from oomdoctor.values import Plan, Spreading, Strategy, StrategyOption

if TYPE_CHECKING:
    from oomdoctor.doctor import Doctor
    from oomdoctor.job import Job
    from oomdoctor.values import Measurement


def strategies(options: argparse.Namespace) -> int:
    """Plans, answers what was asked besides, prints; 1 when nothing fits."""
    from oomdoctor.hardware import cards
    from oomdoctor.planner import compute_strategies, questions

    _check(options)
    about = Strategy.parse(options.strategy) if options.strategy else None
    job = job_of(options)
    with doctor_for(options) as doctor:
        measurement = doctor.measure(job)
        target = doctor.target.model_copy(update={"versions": doctor.versions})
        plan = compute_strategies(
            measurement, target, script=job.script, prefer=options.prefer, rules=rules_of(options), limit=options.top,
            detail=options.detail, front=options.pareto,
        )  # fmt: skip
        plan = questions.answered(
            plan, measurement, target, script=job.script, about=about, jobs=options.largest,
            cards=cards() if options.smallest_card else None, sizes=options.formulas,
        )  # fmt: skip
        if options.draw:
            subject = about or (plan.strategies[0].strategy if plan.strategies else Strategy())
            questions.picture(subject, measurement, target, Path(options.draw), job.script)
            print(f"written: {options.draw}", file=sys.stderr)
        if options.prove:
            plan = _proven(doctor, job, plan, measurement, options.prove)
    show(options, plan, answers.plan(plan, detail=options.detail))
    return 1 if plan.none_fits else 0


def _check(options: argparse.Namespace) -> None:
    """What can be known to fail is said before anything is measured. Raises :class:`InputError`."""
    if options.top < 1:
        raise InputError(f"--top {options.top}: ask for one strategy or more.")
    if options.prove < 0:
        raise InputError(f"--prove {options.prove}: give how many of the strategies to run, 0 or more.")
    if options.draw:
        from oomdoctor.planner import picture

        picture.check(Path(options.draw))


def _proven(doctor: Doctor, job: Job, plan: Plan, measurement: Measurement, count: int) -> Plan:
    """The first ``count`` rewritten and run on the virtual card; one that does not finish there is no longer shown. With
    several cards each way to spread the model is run too."""
    shown: list[StrategyOption] = []
    notes = list(plan.notes)
    for number, option in enumerate(plan.strategies):
        if number >= count:
            shown.append(option)
            continue
        try:
            source = doctor.patch(job, option, measurement).source if option.strategy.applications else job.source
        except NotApplicable as reason:
            notes.append(f"{option.id} cannot be written into this script: {reason}")
            continue
        trial = doctor.prove(job, source)
        if trial.outcome == "ok":
            shown.append(explain.with_trial(option, trial, doctor.target))
        else:
            notes.append(f"{option.id} was estimated to fit but ended with {trial.outcome} on the virtual card.")
    spread = tuple(_spread(doctor, job, s, measurement) for s in plan.spreadings)
    update = {"strategies": tuple(shown), "none_fits": not shown, "notes": tuple(notes), "spreadings": spread}
    return plan.model_copy(update=update)


def _spread(doctor: Doctor, job: Job, way: Spreading, measurement: Measurement) -> Spreading:
    """One way to use several cards, written and run on so many virtual ones; as it was where that cannot be done."""
    if way.strategy is None or way.launch is not None:
        return way
    from oomdoctor.planner.plan import option_of

    try:
        option = option_of(Strategy.parse(way.strategy), measurement, doctor.target, job.script)
        trial = doctor.prove(job, doctor.patch(job, option, measurement).source)
    except NotApplicable as reason:
        return way.model_copy(update={"notes": (*way.notes, f"It was not written into this script: {reason}")})
    if trial.outcome not in ("ok", "oom") or trial.peak_vram_bytes is None:
        return way.model_copy(update={"notes": (*way.notes, f"Run on virtual cards it ended with {trial.outcome}.")})
    found: dict[str, object] = {"fits": trial.outcome == "ok", "proof": "simulated"}
    if trial.outcome == "ok":
        found["vram_bytes"] = trial.peak_vram_bytes
    else:
        died = f"On {doctor.target.gpu_count} virtual cards it ran out of memory; the figure is the estimate."
        found["notes"] = (*way.notes, died)
    return way.model_copy(update=found)
