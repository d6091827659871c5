"""The parser of all commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from oomdoctor import __version__
from oomdoctor.cli import PROG, care, commands
from oomdoctor.cli.options import add_isolation, add_questions, add_real, add_run_options

Command = Callable[[argparse.Namespace], int]


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog=PROG, description="From an out-of-memory traceback and a diffusers script to a patch that was run."
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")

    fix = _command(parsers, "fix", commands.fix, "the whole loop: diagnose, measure, plan, rewrite, prove")
    _script(fix)
    fix.add_argument("--traceback", metavar="FILE|-", help="the pasted traceback; - reads it from stdin")
    _machine(fix)
    _preferences(fix)
    fix.add_argument("--real", action="store_true", help="also run the patched script on this machine's GPU")
    _writes(fix)

    diagnose = _command(parsers, "diagnose", commands.diagnose, "read a traceback")
    diagnose.add_argument("text", metavar="FILE|-", help="file with the traceback; - reads stdin")
    diagnose.add_argument("--script", metavar="FILE", help="the script it comes from, for a sharper reading")

    _command(parsers, "hardware", commands.hardware, "what this machine has").add_argument(
        "--python", metavar="PATH", help="the interpreter that runs your scripts"
    )

    measure = _command(parsers, "measure", commands.measure, "weights per component and activations per stage")
    _script(measure, optional=True)
    measure.add_argument("--model", metavar="ID", help="a model id instead of a script")
    measure.add_argument("--trace", action="store_true", help="with --json: the event trace too (megabytes)")
    _machine(measure)

    strategies = _command(parsers, "strategies", commands.strategies, "what fits the card, with its cost")
    _script(strategies)
    _machine(strategies)
    _preferences(strategies)
    add_questions(strategies)

    rewrite = _command(parsers, "rewrite", commands.rewrite, "write a strategy into a script")
    _script(rewrite)
    rewrite.add_argument("--strategy", metavar="ID", help="an id that `strategies` printed")
    rewrite.add_argument("--revert", action="store_true", help="take the strategy out again")
    rewrite.add_argument("--python", metavar="PATH", help="the interpreter that runs your script (default: this one)")
    _writes(rewrite)

    run = _command(parsers, "run", commands.run, "run scripts on virtual cards; after -- arguments of the script")
    _script(run, several=True)
    _machine(run, several=True)
    add_real(run)
    run.add_argument("--call", action="store_true", help="run a generated call instead of the script itself")
    add_run_options(run)

    _command(parsers, "gpus", commands.gpus, "the catalogue of cards")
    _command(parsers, "models", commands.models, "the catalogue of models")
    _command(parsers, "calibrate", commands.calibrate, "measure this machine's GPU, for better estimates").add_argument(
        "--python", metavar="PATH", help="the interpreter that runs your scripts"
    )
    care.add(parsers, _command)
    for name, words in (("serve", "the MCP server over stdio"), ("evals", "grade an agent on out-of-memory scenarios")):
        parsers.add_parser(name, help=words, add_help=False)
    return parser


def _command(parsers: Any, name: str, run: Command, words: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = parsers.add_parser(name, help=words, description=words)
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
    parser.add_argument("--gpu-count", metavar="N", type=int, help="how many such cards the machine has (1)")
    parser.add_argument("--python", metavar="PATH", help="the interpreter that runs your script (default: this one)")
    parser.add_argument("--configs", metavar="DIR", action="append", default=[], help="folder with configs of models")
    parser.add_argument("--like", metavar="MODEL=KNOWN", action="append", default=[], help="MODEL is built like KNOWN")
    parser.add_argument("--hub", action="store_true", help="ask the Hub what an unknown model is made of (no weights)")
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
