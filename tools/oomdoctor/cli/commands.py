"""The commands, each a function of its parsed options that returns the exit status."""

from __future__ import annotations

import argparse
import json
from typing import Any

from oomdoctor.cli.inputs import doctor_for, job_of, model_job, read_text, rules_of, size_of, target_of
from oomdoctor.cli.output import show, show_data, write_script_file
from oomdoctor.errors import InputError
from oomdoctor.values import Kind, Strategy


def fix(options: argparse.Namespace) -> int:
    from oomdoctor import rendering

    job = job_of(options)
    traceback = read_text(options.traceback, "traceback") if options.traceback else None
    with doctor_for(options) as doctor:
        cure = doctor.fix(job, traceback, prefer=options.prefer, rules=rules_of(options), really=options.real)
    if cure.patch is not None and options.write:
        write_script_file(options, job.encoded(cure.patch.source))
    show(options, cure, rendering.cure(cure))
    not_memory = cure.diagnosis is not None and cure.diagnosis.kind is Kind.NOT_MEMORY
    return 1 if cure.none_fits or not_memory else 0


def diagnose(options: argparse.Namespace) -> int:
    from oomdoctor import rendering
    from oomdoctor.diagnosis import diagnose
    from oomdoctor.script import read_file

    script = read_file(options.script).script if options.script else None
    diagnosis = diagnose(read_text(options.text, "traceback"), script=script)
    show(options, diagnosis, rendering.diagnosis(diagnosis))
    return 0 if diagnosis.is_oom else 1


def hardware(options: argparse.Namespace) -> int:
    from oomdoctor import rendering
    from oomdoctor.hardware import detect_hardware

    hardware = detect_hardware(python=options.python)
    show(options, hardware, rendering.hardware(hardware))
    return 0


def measure(options: argparse.Namespace) -> int:
    from oomdoctor import again, rendering
    from oomdoctor.trial import cache

    job = job_of(options) if options.script else model_job(options)
    with doctor_for(options, any_card=True) as doctor:
        measurement = doctor.measure(job)
        call = doctor.plain_call(job)
    # The event trace is what planning folds over, megabytes of rows that nobody reads.
    shown = measurement if options.trace else measurement.model_copy(update={"trace": None})
    text = rendering.measurement(measurement)
    show(options, shown, text)
    printed = json.dumps(shown.model_dump(mode="json")) if options.json else text
    again.keep(options.asked, printed, cache.places(call, doctor.configs, doctor.like, options.python))
    return 0


def strategies(options: argparse.Namespace) -> int:
    from oomdoctor.cli import questions

    return questions.strategies(options)


def rewrite(options: argparse.Namespace) -> int:
    from oomdoctor import rendering
    from oomdoctor.hardware import libraries_of
    from oomdoctor.rewrite import revert, rewrite

    job = job_of(options)
    if not options.strategy:
        raise InputError(
            "rewrite needs --strategy ID, with --revert the id to take out; `oom-doctor strategies SCRIPT` prints ids."
        )
    strategy = Strategy.parse(options.strategy)
    versions = libraries_of(options.python)
    patch = (revert if options.revert else rewrite)(job.source, strategy, script=job.script, versions=versions)
    if options.write:
        write_script_file(options, job.encoded(patch.source))
    show(options, patch, rendering.patch(patch))
    return 0


def gpus(options: argparse.Namespace) -> int:
    from oomdoctor.hardware import cards
    from oomdoctor.rendering import table
    from oomdoctor.units import gib

    rows = [[c.name, c.label, gib(c.total_bytes), ".".join(map(str, c.compute_capability or ("-",)))] for c in cards()]
    data = {"gpus": [c.model_dump(mode="json") for c in cards()]}
    show_data(options, data, table(["name", "card", "GiB", "capability"], rows))
    return 0


def models(options: argparse.Namespace) -> int:
    from oomdoctor.models import model_ids

    show_data(options, {"models": model_ids()}, "\n".join(model_ids()))
    return 0


def run(options: argparse.Namespace) -> int:
    from oomdoctor import rendering
    from oomdoctor.cli import runs

    scripts, gpus = list(options.script), options.gpu or ["auto"]
    runs.check(options, len(scripts) * len(gpus))
    headroom = size_of(options.headroom, "--headroom") or 0
    jobs = [job_of(_with(options, script=script)) for script in scripts]
    if options.real:
        trial = runs.run_really(options, jobs)
        show(options, trial, rendering.trial(trial, "Trial "))
        return 0 if trial.fits else 1
    options.no_exec = options.no_exec or options.call
    targets = [target_of(_with(options, gpu=gpu), any_card=False) for gpu in gpus]
    with doctor_for(_with(options, gpu=gpus[0])) as doctor:
        value, text, status = runs.run(options, doctor, jobs, targets, headroom)
    show(options, value, text)
    return status


def _with(options: argparse.Namespace, **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), **changes})


def calibrate(options: argparse.Namespace) -> int:
    from oomdoctor import rendering
    from oomdoctor.hardware import detect_hardware
    from oomdoctor.trial.calibration import runner, store

    hardware = detect_hardware(python=options.python)
    driver = hardware.gpus[0].driver_version if hardware.gpus else None
    calibration = runner.calibrate(options.python, driver=driver)
    file = store.save(calibration)
    show(options, calibration, rendering.calibration(calibration, str(file)))
    return 0
