"""Options of ``oom-doctor run``; apart from the command, so that reading them imports nothing of it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oomdoctor.trial.sandbox import Policy

ISOLATIONS = {"auto": "auto", "sandbox": "required", "required": "required", "guards": "guards"}
"""What ``--isolation`` may say -> the mode of a policy."""


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``run`` that other commands do not have."""
    parser.add_argument("--plot", metavar="FILE", help="a picture of memory over the run (.png, .svg, .pdf)")
    parser.add_argument("--snapshot", metavar="FILE", help="the allocator's trace, for pytorch.org/memory_viz")
    parser.add_argument("--trace", metavar="FILE", help="a timeline for ui.perfetto.dev")
    parser.add_argument("--timeline", action="store_true", help="with --json: memory over time as well")
    parser.add_argument("--detail", action="store_true", help="every stage, module, file and assumption")
    parser.add_argument("--headroom", metavar="GIB", help="card memory that must be left for a run to count as fitting")
    parser.add_argument("--allow-network", action="store_true", help="the script may use the network")
    parser.add_argument("--allow-processes", action="store_true", help="the script may start other programs")


def add_questions(parser: argparse.ArgumentParser) -> None:
    """The options of ``strategies`` that other commands do not have."""
    parser.add_argument("--top", metavar="N", type=int, default=6, help="how many to show (6)")
    parser.add_argument("--prove", metavar="N", type=int, default=0, help="run the first N on the virtual card")
    parser.add_argument("--detail", action="store_true", help="also what is not legal here and why, and every reason")
    parser.add_argument("--pareto", action="store_true", help="all that nothing beats in VRAM, time, quality and RAM")
    parser.add_argument("--formulas", action="store_true", help="S_total, S_max, S_block, S_leaf, A of the calculators")
    parser.add_argument("--strategy", metavar="ID", help="price this one too; the options below are about it")
    parser.add_argument("--largest", action="store_true", help="largest resolution, frames, batch that fit with it")
    parser.add_argument("--smallest-card", action="store_true", help="smallest card that runs it (default: plain)")
    parser.add_argument("--draw", metavar="FILE", help="memory of the card over one call with it (.png)")


def add_isolation(parser: argparse.ArgumentParser) -> None:
    """The option of every command that may run a script."""
    parser.add_argument(
        "--isolation",
        choices=tuple(ISOLATIONS),
        default="auto",
        help="sandbox: a verified one or no run; guards: Python's only; auto: the best there is (default)",
    )


def policy(options: argparse.Namespace) -> Policy | None:
    """How runs are isolated; None for a command that has no say in it.

    A required sandbox reads nothing but what a run needs, the scripts' folders, and the folder the command runs in.
    """
    from oomdoctor.trial.sandbox import Policy, own_files

    if not hasattr(options, "isolation"):
        return None
    mode = ISOLATIONS[options.isolation]
    read: tuple[str, ...] | None = None
    if mode == "required":
        given = getattr(options, "script", None) or []
        scripts = [given] if isinstance(given, str) else given
        folders = dict.fromkeys([os.getcwd(), *(os.path.dirname(os.path.abspath(s)) for s in scripts if s != "-")])
        read = tuple(path for folder in folders for path in own_files(folder))
    return Policy(
        mode=mode,
        read=read,
        allow_network=getattr(options, "allow_network", False),
        allow_processes=getattr(options, "allow_processes", False),
    )


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and after the first ``--`` of a ``run`` command; the latter is the script's."""
    if arguments[:1] == ["run"] and "--" in arguments:
        at = arguments.index("--")
        return arguments[:at], arguments[at + 1 :]
    return arguments, []


def add_real(parser: argparse.ArgumentParser) -> None:
    """The options of a run on the GPU of this machine."""
    parser.add_argument("--real", action="store_true", help="use the GPU of this machine instead of a virtual one")
    parser.add_argument("--probe", action="store_true", help="with --real: the same sizes with the fewest steps")
    parser.add_argument(
        "--limit-vram", metavar="GIB", help="with --real: hold the rest, so that the card behaves as a smaller one"
    )
    parser.add_argument("--times", type=int, default=1, metavar="N", help="with --real: run it N times in one process")
    parser.add_argument("--keep", metavar="DIR", help="with --real: keep the pictures in this folder")
