"""The command line. Every command has ``--json``: one JSON object on stdout, everything else on stderr.

Exit status: 0 done or fits, 1 an honest no, 2 the input is at fault (the message has the way out), 3 a defect of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oomdoctor.cli.parser import Command, build_parser

PROG = "oom-doctor"

__all__ = ["PROG", "build_parser", "main"]


def __getattr__(name: str) -> Any:
    """``build_parser``, imported when it is asked for: an answer that is kept needs nothing of it."""
    if name == "build_parser":
        from oomdoctor.cli import parser

        return parser.build_parser
    raise AttributeError(name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the console entry point."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:
        from oomdoctor_mcp import serve

        return serve(arguments[1:])
    if arguments[:1] == ["evals"]:
        from oomdoctor_evals.cli import main as evals

        return evals(arguments[1:])
    if arguments[:1] == ["measure"]:
        from oomdoctor import again

        known = again.answer(arguments)
        if known is not None:
            print(known)
            return 0
    return _run(arguments)


def _run(arguments: list[str]) -> int:
    from oomdoctor.cli.options import split_arguments
    from oomdoctor.cli.parser import build_parser
    from oomdoctor.errors import OomDoctorError
    from oomdoctor.interpreter import default_python

    parser = build_parser()
    asked = list(arguments)
    arguments, of_the_script = split_arguments(arguments)
    options = parser.parse_args(arguments)
    if getattr(options, "python", "") is None:
        options.python = default_python()
    options.arguments, options.asked = of_the_script, asked
    command: Command = options.command
    if getattr(options, "parent_watch", False):
        _watch_parent()
    try:
        status = command(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads the answer has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OomDoctorError as error:
        return _fail(options, error, error.exit_status)
    except KeyboardInterrupt:
        return 130
    except Exception as defect:
        if getattr(options, "debug", False):
            raise
        return _fail(options, defect, 3)


def _fail(options: argparse.Namespace, error: Exception, status: int) -> int:
    from oomdoctor.errors import OomDoctorError

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
        # Not sys.stdin: a thread that waits in it holds its lock, and Python aborts at exit on finding it held.
        while os.read(0, 4096):
            pass
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()
