"""Options of ``oom-doctor run``; apart from the command, so that reading them imports nothing of it."""

from __future__ import annotations

import argparse

ISOLATIONS = {"auto": "auto", "sandbox": "required", "guards": "guards"}


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``run`` that other commands do not have."""
    parser.add_argument("--plot", metavar="FILE", help="a picture of memory over the run (.png, .svg, .pdf)")
    parser.add_argument("--snapshot", metavar="FILE", help="the allocator's trace, for pytorch.org/memory_viz")
    parser.add_argument("--trace", metavar="FILE", help="a timeline for ui.perfetto.dev")
    parser.add_argument("--timeline", action="store_true", help="with --json: memory over time as well")
    parser.add_argument("--detail", action="store_true", help="every stage, module, file and assumption")
    parser.add_argument("--headroom", metavar="GIB", help="card memory that must be left for a run to count as fitting")
    parser.add_argument(
        "--isolation",
        choices=tuple(ISOLATIONS),
        default="auto",
        help="sandbox: a verified one or no run; guards: Python's only; auto: the best there is (default)",
    )
    parser.add_argument("--allow-network", action="store_true", help="the script may use the network")
    parser.add_argument("--allow-processes", action="store_true", help="the script may start other programs")


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and after the first ``--`` of a ``run`` command; the latter is the script's."""
    if arguments[:1] == ["run"] and "--" in arguments:
        at = arguments.index("--")
        return arguments[:at], arguments[at + 1 :]
    return arguments, []
