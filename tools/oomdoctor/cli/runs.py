"""``oom-doctor run``: one script or several, one card or several; figures, pictures, files, and an exit status for CI."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oomdoctor import report
from oomdoctor.cli.inputs import size_of
from oomdoctor.doctor import Doctor
from oomdoctor.errors import InputError
from oomdoctor.job import Job
from oomdoctor.report import plot
from oomdoctor.values import Comparison, ComparisonRow, Target, Trial, Value


def check(options: argparse.Namespace, runs: int) -> None:
    """What can be known to fail is said before anything runs. Raises :class:`InputError`."""
    if options.plot:
        plot.check(Path(options.plot))
    for option in ("plot", "snapshot", "trace"):
        name = getattr(options, option)
        if name and not Path(name).resolve().parent.is_dir():
            raise InputError(f"--{option} {name}: there is no such folder. Make it first, or choose another.")
    if runs > 1 and (options.snapshot or options.trace):
        raise InputError("--snapshot and --trace are of one run; give one script and one card with them.")


def run(
    options: argparse.Namespace, doctor: Doctor, jobs: Sequence[Job], targets: Sequence[Target], headroom: int
) -> tuple[Value, str, int]:
    """Run every job on every target; (value for ``--json``, text, exit status)."""
    bar = report.Bar(sys.stderr) if sys.stderr.isatty() and not (options.json or options.progress) else None
    if bar is not None:
        doctor.progress, doctor.live = bar.tell, bar.live
    rows = []
    names = _names(jobs)
    try:
        for name, job in zip(names, jobs, strict=True):
            for target in targets:
                trial = _one(options, doctor, job, target, single=len(jobs) * len(targets) == 1)
                fits = trial.fits and (trial.headroom_bytes or 0) >= headroom
                rows.append(ComparisonRow(script=name, card=target.card.name, trial=trial, fits=fits))
    finally:
        if bar is not None:
            bar.close()
    comparison = Comparison(rows=tuple(rows), fits=all(r.fits for r in rows))
    status = 0 if comparison.fits else 1
    if len(rows) == 1:
        return rows[0].trial, _text_of_one(options, rows[0]), status
    if options.plot:
        _write(Path(options.plot), lambda path: report.plot_comparison(comparison, path))
    return comparison, _text(options, comparison), status


def _names(jobs: Sequence[Job]) -> list[str]:
    """File names; whole paths where two scripts have the same."""
    names = [Path(job.path).name for job in jobs]
    return names if len(set(names)) == len({job.path for job in jobs}) else [job.path for job in jobs]


def _one(options: argparse.Namespace, doctor: Doctor, job: Job, target: Target, *, single: bool) -> Trial:
    """One run, and the files that were asked for of it."""
    snapshots: list[dict[str, Any]] = []
    drawn = single and bool(options.plot or options.trace)
    trial = doctor.prove(
        job,
        target=target,
        timeline=drawn or options.timeline,
        on_snapshot=snapshots.append if options.snapshot else None,
    )
    if not single:
        return trial
    title = Path(job.path).name
    if options.plot:
        _write(Path(options.plot), lambda path: report.plot_run(trial, path, title))
    if options.trace:
        _write(Path(options.trace), lambda path: report.write_trace(trial, path))
    if options.snapshot:
        if not snapshots:
            raise InputError(f"There is no snapshot: the run ended ({trial.outcome}) before it could leave one.")
        _write(Path(options.snapshot), lambda path: report.write_snapshot(snapshots[0], path))
    return trial if options.timeline else trial.model_copy(update={"timeline": None})


def _write(path: Path, write: Any) -> None:
    write(path)
    print(f"written: {path}", file=sys.stderr)


def _text_of_one(options: argparse.Namespace, row: ComparisonRow) -> str:
    text = report.run_report(row.trial, row.script, detail=options.detail)
    if row.trial.fits and not row.fits:
        text += "\n  too tight: it runs, but with less left than --headroom asks for"
    return text


def _text(options: argparse.Namespace, comparison: Comparison) -> str:
    parts = [report.comparison_table(comparison)]
    for row in comparison.rows:
        if options.detail or row.trial.outcome == "error":
            parts.append(report.run_report(row.trial, f"{row.script} on {row.card}", detail=options.detail))
    return "\n\n".join(parts)


def run_really(options: argparse.Namespace, jobs: Sequence[Job]) -> Trial:
    """``--real``: one script on the GPU of this machine."""
    from oomdoctor.trial.real.runner import RealRun, run_real

    if len(jobs) > 1 or options.gpu not in (None, ["auto"]) or options.no_exec:
        raise InputError("--real runs one script on the GPU of this machine: no --gpu, no --no-exec, one SCRIPT.")
    job = jobs[0]
    run = RealRun(
        job.source,
        path=job.path,
        argv=job.argv,
        mode="probe" if options.probe else "full",
        limit_bytes=size_of(options.limit_vram, "--limit-vram"),
        times=options.times,
        save_to=options.keep,
        timeout=options.timeout,
    )
    return run_real(run, python=options.python, script=job.script)
