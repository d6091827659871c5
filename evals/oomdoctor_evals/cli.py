"""``oom-doctor evals``: list the scenarios, run an agent on them, report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the evals. Returns the exit status: 0 done, 2 when the input is at fault."""
    parser = argparse.ArgumentParser(prog="oom-doctor evals", description="Grade an agent on out-of-memory scenarios.")
    parser.add_argument("--version", action="version", version="oom-doctor evals 1")
    parser.parse_args(argv)
    parser.print_help()
    return 0
