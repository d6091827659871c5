"""The command line. Every command has ``--json``: one JSON object on stdout, everything else on stderr.

Exit status: 0 done or fits, 1 an honest no, 2 the input is at fault (the message has the way out), 3 a defect of ours.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oomdoctor import __version__, cli_care
from oomdoctor.cli_options import add_isolation, add_real, add_run_options, policy, split_arguments
from oomdoctor.errors import InputError, NoError, OomDoctorError, UnreadableFile, WouldOverwrite
from oomdoctor.units import parse_size
from oomdoctor.values import Kind, Strategy, Target, Value

if TYPE_CHECKING:
    from oomdoctor.doctor import Doctor, Job

PROG = "oom-doctor"
MAX_TEXT = 64 << 20

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the console entry point."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:
        from oomdoctor_mcp import serve

        return serve(arguments[1:])
    if arguments[:1] == ["evals"]:
        from oomdoctor_evals.cli import main as evals

        return evals(arguments[1:])
    parser = build_parser()
    arguments, of_the_script = split_arguments(arguments)
    options = parser.parse_args(arguments)
    options.arguments = of_the_script
    command: Command = options.command
    if getattr(options, "parent_watch", False):
        _watch_parent()
    try:
        return command(options)
    except OomDoctorError as error:
        return _fail(options, error, error.exit_status)
    except KeyboardInterrupt:
        return 130
    except Exception as defect:
        if getattr(options, "debug", False):
            raise
        return _fail(options, defect, 3)


def _fail(options: argparse.Namespace, error: Exception, status: int) -> int:
    text = str(error)
    if status == 3 and not isinstance(error, OomDoctorError):
        text = f"a defect of {PROG}: {type(error).__name__}: {error}. Please report it with the output of --debug."
    if getattr(options, "json", False):
        print(json.dumps({"error": {"class": type(error).__name__, "message": text}}), file=sys.stderr)
    else:
        print(f"{PROG}: {text}", file=sys.stderr)
    return status


def _watch_parent() -> None:
    """Exit when stdin closes: the process that started us holds it open as long as it lives."""
    import os
    import threading

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


# ------------------------------------------------------------------------------------------------ the parser
def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog=PROG, description="From an out-of-memory traceback and a diffusers script to a patch that was run."
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fix = _command(commands, "fix", _fix, "the whole loop: diagnose, measure, plan, rewrite, prove")
    _script(fix)
    fix.add_argument("--traceback", metavar="FILE|-", help="the pasted traceback; - reads it from stdin")
    _machine(fix)
    _preferences(fix)
    fix.add_argument("--real", action="store_true", help="also run the patched script on this machine's GPU")
    _writes(fix)

    diagnose = _command(commands, "diagnose", _diagnose, "read a traceback")
    diagnose.add_argument("text", metavar="FILE|-", help="file with the traceback; - reads stdin")
    diagnose.add_argument("--script", metavar="FILE", help="the script it comes from, for a sharper reading")

    _command(commands, "hardware", _hardware, "what this machine has").add_argument(
        "--python", metavar="PATH", help="the interpreter that runs your scripts"
    )

    measure = _command(commands, "measure", _measure, "weights per component and activations per stage")
    _script(measure, optional=True)
    measure.add_argument("--model", metavar="ID", help="a model id instead of a script")
    _machine(measure)

    strategies = _command(commands, "strategies", _strategies, "what fits the card, with its cost")
    _script(strategies)
    _machine(strategies)
    _preferences(strategies)
    strategies.add_argument("--detail", action="store_true", help="also list what is not legal here, and why")

    rewrite = _command(commands, "rewrite", _rewrite, "write a strategy into a script")
    _script(rewrite)
    rewrite.add_argument("--strategy", metavar="ID", help="an id that `strategies` printed")
    rewrite.add_argument("--revert", action="store_true", help="take the strategy out again")
    _writes(rewrite)

    run = _command(commands, "run", _run, "run scripts on virtual cards; after -- arguments of the script")
    _script(run, several=True)
    _machine(run, several=True)
    add_real(run)
    run.add_argument("--call", action="store_true", help="run a generated call instead of the script itself")
    add_run_options(run)

    _command(commands, "gpus", _gpus, "the catalogue of cards")
    _command(commands, "models", _models, "the catalogue of models")
    cli_care.add(commands, _command)
    for name, words in (("serve", "the MCP server over stdio"), ("evals", "grade an agent on out-of-memory scenarios")):
        commands.add_parser(name, help=words, add_help=False)
    return parser


def _command(commands: Any, name: str, run: Command, words: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words)
    parser.set_defaults(command=run)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--progress", action="store_true", help="JSON lines of progress on stderr")
    parser.add_argument("--parent-watch", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return parser


def _script(parser: argparse.ArgumentParser, *, optional: bool = False, several: bool = False) -> None:
    nargs = "+" if several else "?" if optional else None
    parser.add_argument("script", metavar="SCRIPT", nargs=nargs, help="a .py or .ipynb file; - reads stdin")


def _machine(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    words = "a card of the catalogue, or auto (default)"
    if several:
        parser.add_argument("--gpu", metavar="CARD", action="append", help=words + "; may be given several times")
    else:
        parser.add_argument("--gpu", metavar="CARD", default="auto", help=words)
    parser.add_argument("--vram", metavar="GIB", help="memory of the card that the script may use")
    parser.add_argument("--ram", metavar="GIB", help="RAM that the script may use")
    parser.add_argument("--python", metavar="PATH", help="the interpreter that runs your script (default: this one)")
    parser.add_argument("--configs", metavar="DIR", action="append", default=[], help="folder with configs of models")
    parser.add_argument("--like", metavar="MODEL=KNOWN", action="append", default=[], help="MODEL is built like KNOWN")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=300.0, help="limit per run (300)")
    add_isolation(parser)
    parser.add_argument("--no-exec", action="store_true", help="never execute the script; a generated call stands in")


def _preferences(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prefer", choices=("quality", "speed", "memory", "balanced"), default="balanced")
    parser.add_argument("--no-quantisation", action="store_true")
    parser.add_argument("--no-new-packages", action="store_true")
    parser.add_argument(
        "--max-slowdown", type=float, metavar="N", help="at most N times the time of everything resident"
    )
    parser.add_argument("--keep-batch", action="store_true", help="all pictures of a call in one batch")
    parser.add_argument(
        "--worst-quality", choices=("identical", "slight", "noticeable"), default="noticeable",
        help="the most that may happen to the picture",
    )  # fmt: skip


def _writes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write", metavar="OUT", help="write the patched script to this new file")
    parser.add_argument("--overwrite", action="store_true", help="OUT may exist; a .bak copy of it is kept")


# ------------------------------------------------------------------------------------------------ commands
def _fix(options: argparse.Namespace) -> int:
    from oomdoctor import rendering

    job = _job(options)
    traceback = _read_text(options.traceback, "traceback") if options.traceback else None
    with _doctor(options) as doctor:
        cure = doctor.fix(job, traceback, prefer=options.prefer, rules=_rules(options), really=options.real)
    if cure.patch is not None and options.write:
        _write(options, cure.patch.source, job)
    _show(options, cure, rendering.cure(cure))
    not_memory = cure.diagnosis is not None and cure.diagnosis.kind is Kind.NOT_MEMORY
    return 1 if cure.none_fits or not_memory else 0


def _diagnose(options: argparse.Namespace) -> int:
    from oomdoctor import rendering
    from oomdoctor.diagnosis import diagnose
    from oomdoctor.script import read_file

    script = read_file(options.script).script if options.script else None
    diagnosis = diagnose(_read_text(options.text, "traceback"), script=script)
    _show(options, diagnosis, rendering.diagnosis(diagnosis))
    return 0 if diagnosis.is_oom else 1


def _hardware(options: argparse.Namespace) -> int:
    from oomdoctor import rendering
    from oomdoctor.hardware import detect_hardware

    hardware = detect_hardware(python=options.python)
    _show(options, hardware, rendering.hardware(hardware))
    return 0


def _measure(options: argparse.Namespace) -> int:
    from oomdoctor import rendering

    job = _job(options) if options.script else _model_job(options)
    with _doctor(options, any_card=True) as doctor:
        measurement = doctor.measure(job)
    _show(options, measurement, rendering.measurement(measurement))
    return 0


def _strategies(options: argparse.Namespace) -> int:
    from oomdoctor import rendering

    job = _job(options)
    with _doctor(options) as doctor:
        measurement = doctor.measure(job)
        plan = doctor.plan(job, measurement, prefer=options.prefer, rules=_rules(options), detail=options.detail)
    _show(options, plan, rendering.plan(plan))
    return 1 if plan.none_fits else 0


def _rewrite(options: argparse.Namespace) -> int:
    from oomdoctor import rendering
    from oomdoctor.rewrite import revert, rewrite

    job = _job(options)
    if not options.strategy:
        raise InputError(
            "rewrite needs --strategy ID, with --revert the id to take out; `oom-doctor strategies SCRIPT` prints ids."
        )
    strategy = Strategy.parse(options.strategy)
    patch = (revert if options.revert else rewrite)(job.source, strategy, script=job.script)
    if options.write:
        _write(options, patch.source, job)
    _show(options, patch, rendering.patch(patch))
    return 0


def _run(options: argparse.Namespace) -> int:
    from oomdoctor import run_command

    scripts, gpus = list(options.script), options.gpu or ["auto"]
    run_command.check(options, len(scripts) * len(gpus))
    headroom = _size(options.headroom, "--headroom") or 0
    jobs = [_job(_with(options, script=script)) for script in scripts]
    if options.real:
        return _run_really(options, jobs)
    options.no_exec = options.no_exec or options.call
    targets = [_target(_with(options, gpu=gpu), any_card=False) for gpu in gpus]
    with _doctor(_with(options, gpu=gpus[0])) as doctor:
        value, text, status = run_command.run(options, doctor, jobs, targets, headroom)
    _show(options, value, text)
    return status


def _run_really(options: argparse.Namespace, jobs: list[Job]) -> int:
    from oomdoctor import rendering
    from oomdoctor.trial.real.runner import RealRun, run_real

    if len(jobs) > 1 or options.gpu not in (None, ["auto"]) or options.no_exec:
        raise InputError("--real runs one script on the GPU of this machine: no --gpu, no --no-exec, one SCRIPT.")
    job = jobs[0]
    run = RealRun(
        job.source,
        path=job.path,
        argv=job.argv,
        mode="probe" if options.probe else "full",
        limit_bytes=_size(options.limit_vram, "--limit-vram"),
        times=options.times,
        save_to=options.keep,
        timeout=options.timeout,
    )
    trial = run_real(run, python=options.python, script=job.script)
    _show(options, trial, rendering.trial(trial, "Trial "))
    return 0 if trial.fits else 1


def _with(options: argparse.Namespace, **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), **changes})


def _gpus(options: argparse.Namespace) -> int:
    from oomdoctor.hardware import cards
    from oomdoctor.rendering import table
    from oomdoctor.units import gib

    rows = [[c.name, c.label, gib(c.total_bytes), ".".join(map(str, c.compute_capability or ("-",)))] for c in cards()]
    data = {"gpus": [c.model_dump(mode="json") for c in cards()]}
    _print(options, data, table(["name", "card", "GiB", "capability"], rows))
    return 0


def _models(options: argparse.Namespace) -> int:
    from oomdoctor.models import model_ids

    _print(options, {"models": model_ids()}, "\n".join(model_ids()))
    return 0


# ------------------------------------------------------------------------------------------------ inputs
def _doctor(options: argparse.Namespace, *, any_card: bool = False) -> Doctor:
    from oomdoctor.doctor import Doctor

    return Doctor(
        target=_target(options, any_card=any_card),
        python=options.python,
        configs=tuple(options.configs),
        like=dict(_pair(text) for text in options.like),
        run_scripts=not options.no_exec,
        timeout=options.timeout,
        progress=_progress(options),
        policy=policy(options),
    )


def _pair(text: str) -> tuple[str, str]:
    model, sign, known = text.partition("=")
    if not sign or not model or not known:
        raise InputError(
            f"--like {text!r}: write it as MODEL=KNOWN, for example --like me/my-flux=black-forest-labs/FLUX.1-dev."
        )
    return model, known


def _target(options: argparse.Namespace, *, any_card: bool) -> Target:
    from oomdoctor.hardware import card, custom_card, detect_hardware, target_auto, target_for

    vram, ram = _size(options.vram, "--vram"), _size(options.ram, "--ram")
    hardware = detect_hardware(python=options.python)
    if options.gpu != "auto":
        return target_for(card(options.gpu), vram_bytes=vram, ram_bytes=ram, hardware=hardware)
    if hardware.gpus:
        return target_auto(hardware, vram_bytes=vram, ram_bytes=ram)
    if vram is not None:
        return target_for(custom_card(vram), ram_bytes=ram, hardware=hardware)
    if any_card:
        return target_for(card("rtx-4090"), ram_bytes=ram, hardware=hardware)
    return target_auto(hardware, ram_bytes=ram)


def _size(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        size = parse_size(text, default_unit="gib")
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None
    if size <= 0:
        raise InputError(f"{option} {text}: give a positive size in GiB.")
    return size


def _rules(options: argparse.Namespace) -> Any:
    from oomdoctor.planner import Rules
    from oomdoctor.values import Quality

    worst = {"identical": Quality.EQUIVALENT, "slight": Quality.SLIGHT, "noticeable": Quality.NOTICEABLE}
    return Rules(
        no_quantisation=options.no_quantisation,
        no_new_packages=options.no_new_packages,
        max_slowdown=options.max_slowdown,
        keep_batch=options.keep_batch,
        worst_quality=worst[options.worst_quality],
    )


def _job(options: argparse.Namespace) -> Job:
    from oomdoctor.doctor import read_job
    from oomdoctor.script import read_file

    argv = tuple(getattr(options, "arguments", ()))
    if options.script == "-":
        return read_job(sys.stdin.read(MAX_TEXT), None, argv)
    file = read_file(options.script)
    return read_job(file.text, str(options.script), argv)


def _model_job(options: argparse.Namespace) -> Job:
    from oomdoctor.doctor import read_job
    from oomdoctor.models import resolve
    from oomdoctor.script.harness import harness_for_model

    if not options.model:
        raise InputError("measure needs a SCRIPT or --model ID; `oom-doctor models` lists the ids that are known.")
    files = resolve(options.model, configs_dir=options.configs or None)
    class_name = files.pipeline_class or "DiffusionPipeline"
    return read_job(harness_for_model(class_name, options.model, "torch.bfloat16", {}), "call.py")


def _read_text(name: str, what: str) -> str:
    if name == "-":
        text = sys.stdin.read(MAX_TEXT)
    else:
        path = Path(name)
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_TEXT)
        except OSError as error:
            raise UnreadableFile(
                f"The {what} {name} cannot be read ({error.strerror}). Give the path of a text file, or - to paste it on stdin."
            ) from None
    if not text.strip():
        raise NoError(f"The {what} is empty. Paste the whole error, from 'Traceback' to the last line.")
    return text


# ------------------------------------------------------------------------------------------------ outputs
def _progress(options: argparse.Namespace) -> Callable[[str, str], None] | None:
    def lines(phase: str, words: str) -> None:
        print(
            json.dumps({"progress": {"phase": phase, "fraction": None, "message": words}}), file=sys.stderr, flush=True
        )

    def bar(phase: str, words: str) -> None:
        print(f"\r\x1b[2K{phase} {words}"[:100], end="", file=sys.stderr, flush=True)

    if options.progress:
        return lines
    if sys.stderr.isatty() and not options.json:
        return bar
    return None


def _show(options: argparse.Namespace, value: Value, text: str) -> None:
    _print(options, value.model_dump(mode="json"), text)


def _print(options: argparse.Namespace, data: dict[str, Any], text: str) -> None:
    if not options.json and sys.stderr.isatty():
        print("\r\x1b[2K", end="", file=sys.stderr)
    print(json.dumps(data) if options.json else text)


def _write(options: argparse.Namespace, text: str, job: Job) -> None:
    """Write the patched script atomically; an existing file only when asked, and with a copy kept."""
    from oomdoctor.writing import write_script

    path = Path(options.write)
    if path.exists() and not options.overwrite:
        raise WouldOverwrite(f"{path} exists; nothing was written. Choose another name or add --overwrite.")
    write_script(path, text)
    print(f"written: {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
