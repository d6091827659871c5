"""``oom-doctor evals``: list the scenarios, run an agent on them, report, check the suite itself."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from oomdoctor.errors import OomDoctorError

if TYPE_CHECKING:
    from oomdoctor_evals.sim.cache import Cache
    from oomdoctor_evals.sim.recorded import Recorder
    from oomdoctor_evals.values import Scenario

PROG = "oom-doctor evals"
Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Status: 0 done, 1 the suite itself is not sound, 2 the input is at fault."""
    options = build_parser().parse_args(argv)
    command: Command = options.command
    try:
        return command(options)
    except OomDoctorError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return error.exit_status


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog=PROG, description="Grade an agent on out-of-memory scenarios.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = _command(commands, "list", _list, "the scenarios")
    _chosen(listing)
    listing.add_argument("--json", action="store_true", help="one JSON object on stdout")

    run = _command(commands, "run", _run, "an agent on the scenarios, graded")
    _chosen(run)
    run.add_argument("--agent", default="scripted", metavar="NAME", help="noop, ..., oracle, scripted, command:PROGRAM")
    run.add_argument("--epochs", type=int, default=1, metavar="N", help="attempts per scenario (3 for pass^3)")
    run.add_argument("--out", type=Path, metavar="DIR", help="write report.json, report.md and report.html here")
    _simulated(run)

    report = _command(commands, "report", _report, "pages from the results of several runs")
    report.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="results.json of earlier runs")
    report.add_argument("--out", type=Path, required=True, metavar="DIR")

    recording = _command(commands, "record", _record, "what the repository keeps of a measured suite")
    _chosen(recording)
    recording.add_argument("results", nargs="*", type=Path, metavar="RESULTS", help="results.json of agents' runs")
    recording.add_argument("--out", type=Path, required=True, metavar="DIR")
    recording.add_argument("--wrong", action="store_true", help="also run wrong answers and exploits")
    _simulated(recording)

    fresh = _command(commands, "refresh", _refresh, "measure the best answers anew, for another simulator version")
    _chosen(fresh)
    _simulated(fresh)

    grading = _command(commands, "grade", _grade, "one answer to one scenario")
    grading.add_argument("folder", type=Path, metavar="FOLDER", help="a scenario's folder, or one that holds just it")
    grading.add_argument("--answer", type=Path, required=True, metavar="FILE", help="the answer as JSON")
    grading.add_argument("--reward", type=Path, metavar="FILE", help="write 1 (fit@1.25) or 0 here")

    check = _command(commands, "check", _check, "the suite itself: witnesses, wrong answers, exploits, bots")
    _chosen(check)
    _simulated(check)
    check.add_argument("--exploits", action="store_true", help="also play every exploit on every scenario")

    making = _command(commands, "make", _make, "build the public scenarios anew from their families")
    making.add_argument("--out", type=Path, metavar="DIR", help="where to (default: the package's own folder)")
    making.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="family/variant names that hold TEXT"
    )
    _simulated(making)

    evidence = _command(commands, "make-evidence", _evidence, "an error message as a person would paste it")
    evidence.add_argument("script", type=Path, metavar="SCRIPT")
    evidence.add_argument("--gpu", required=True, metavar="CARD")
    evidence.add_argument("--ram", type=float, default=64.0, metavar="GIB")
    evidence.add_argument("--used", type=int, default=0, metavar="MIB", help="held by other programs")
    evidence.add_argument("--style", default="plain", choices=("plain", "log", "docker", "colab"))

    heldout = _command(commands, "heldout", _heldout, "a held-out set drawn by a secret seed (from stdin)")
    to = heldout.add_mutually_exclusive_group(required=True)
    to.add_argument("--out", type=Path, metavar="DIR", help="build the set here")
    to.add_argument("--lock", action="store_true", help="only pin what is drawn, in scenarios/heldout.lock")
    _simulated(heldout)

    export = _command(commands, "export", _export, "the scenarios in another format")
    _chosen(export)
    export.add_argument("format", choices=("skill-creator", "harbor"))
    export.add_argument("--out", type=Path, required=True, metavar="DIR")

    show = _command(commands, "show", _show, "a scenario as an agent sees it")
    show.add_argument("id", metavar="ID")
    show.add_argument("--scenarios", type=Path, metavar="DIR")
    return parser


def _command(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: Command, words: str) -> (
    argparse.ArgumentParser
):  # fmt: skip
    parser = commands.add_parser(name, help=words, description=words)
    parser.set_defaults(command=run)
    return parser


def _chosen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenarios", type=Path, metavar="DIR", help="another set of scenarios (a held-out one)")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="ids or categories that hold TEXT")


def _simulated(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes side by side (2)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where simulated runs are kept (.evals-cache)")
    parser.add_argument("--no-cache", action="store_true", help="simulate everything anew")
    parser.add_argument("--stale", action="store_true", help="also take kept runs of another version of the simulator")


def _list(options: argparse.Namespace) -> int:
    from oomdoctor_evals.report.text import table

    scenarios = chosen(options)
    if options.json:
        keys = {"id", "category", "machine", "preference", "provenance", "expected"}
        print(json.dumps({"scenarios": [s.model_dump(mode="json", include=keys) for s in scenarios]}))
        return 0
    rows = [
        [s.id, s.category, s.expected.verdict, s.machine.gpu, f"{s.machine.ram_mib // 1024}", s.provenance.kind]
        for s in scenarios
    ]
    print(table(["scenario", "category", "verdict", "card", "RAM GiB", "from"], rows))
    print(f"{len(rows)} scenarios, {len({s.family for s in scenarios})} families")
    return 0


def _run(options: argparse.Namespace) -> int:
    from oomdoctor_evals.report.pages import write_pages
    from oomdoctor_evals.report.store import Results
    from oomdoctor_evals.report.text import line, overview
    from oomdoctor_evals.running import Settings, run, usual_cache

    scenarios = chosen(options)
    cache = None if options.no_cache else (options.cache or usual_cache())
    settings = Settings(options.agent, options.epochs, options.jobs, cache, options.stale)
    results = run(scenarios, settings, tell=lambda result: print(line(result.grade), file=sys.stderr, flush=True))
    stored = Results.of(results, settings.agent)
    print(overview(stored))
    if options.out:
        stored.write(options.out / "results.json")
        write_pages([stored], options.out)
    return 0


def _report(options: argparse.Namespace) -> int:
    from oomdoctor_evals.report.pages import write_pages
    from oomdoctor_evals.report.store import Results

    for path in write_pages([Results.read(path) for path in options.results], options.out):
        print(path)
    return 0


def _show(options: argparse.Namespace) -> int:
    from oomdoctor.errors import InputError

    from oomdoctor_evals.loader import load_all

    for scenario in load_all(options.scenarios):
        if options.id in (scenario.id, scenario.public_id):
            print(json.dumps(scenario.question(), indent=1))
            return 0
    raise InputError(f"There is no scenario {options.id}; `oom-doctor evals list` prints them.")


def _grade(options: argparse.Namespace) -> int:
    from oomdoctor_evals.maintenance import grade_file

    return grade_file(options.folder, options.answer, options.reward)


def _record(options: argparse.Namespace) -> int:
    from oomdoctor_evals.recording import record
    from oomdoctor_evals.report.store import Results

    results = [Results.read(path) for path in options.results]
    for path in record(chosen(options), results, options.out, _recorder(options), wrong=options.wrong):
        print(path)
    return 0


def _refresh(options: argparse.Namespace) -> int:
    from oomdoctor_evals.recording import refresh

    unsound = 0
    for scenario, what in refresh(chosen(options), _recorder(options)):
        print(f"{scenario.id}: {what}", flush=True)
        unsound += what.startswith("no witness")
    return 1 if unsound else 0


def _recorder(options: argparse.Namespace) -> Recorder:
    from oomdoctor_evals.sim.cache import default_folder
    from oomdoctor_evals.sim.recorded import Recorder

    folder = None if options.no_cache else (options.cache or default_folder())
    return Recorder(folder, stale_ok=options.stale)


def _check(options: argparse.Namespace) -> int:
    from oomdoctor_evals.maintenance import check

    return check(chosen(options), _cache(options), exploits=options.exploits)


def _make(options: argparse.Namespace) -> int:
    from oomdoctor_evals.maintenance import make

    return make(options.out, options.only, _cache(options))


def _evidence(options: argparse.Namespace) -> int:
    from oomdoctor_evals.maintenance import make_evidence

    return make_evidence(options.script, options.gpu, options.ram, options.used, options.style)


def _heldout(options: argparse.Namespace) -> int:
    from oomdoctor_evals.maintenance import heldout

    return heldout(sys.stdin.readline().strip(), options.out, _cache(options))


def _export(options: argparse.Namespace) -> int:
    from oomdoctor_evals.exports import harbor, skill_creator

    make = {"harbor": harbor.export, "skill-creator": skill_creator.export}[options.format]
    make(chosen(options), options.out)
    print(f"written: {options.out}")
    return 0


def _cache(options: argparse.Namespace) -> Cache:
    from oomdoctor_evals.sim.cache import Cache, default_folder

    folder = None if options.no_cache else (options.cache or default_folder())
    return Cache(folder, stale_ok=options.stale)


def chosen(options: argparse.Namespace) -> tuple[Scenario, ...]:
    """The scenarios that the options select."""
    from oomdoctor.errors import InputError

    from oomdoctor_evals.loader import load_all

    found = load_all(options.scenarios)
    if options.only:
        found = tuple(s for s in found if any(text in s.id or text == s.category for text in options.only))
    if not found:
        raise InputError(f"No scenario matches {', '.join(options.only)}; `oom-doctor evals list` prints them.")
    return found
