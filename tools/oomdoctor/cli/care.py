"""The commands that look after the tool itself: ``check`` and ``report``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oomdoctor.errors import UnreadableFile, WouldOverwrite

Add = Callable[..., argparse.ArgumentParser]


def add(commands: Any, command: Add) -> None:
    """Put both commands among the others; ``command`` makes a parser with the options that all have."""
    check = command(commands, "check", _check, "try every part of this installation")
    check.add_argument("--python", metavar="PATH", help="the interpreter that runs your scripts")
    report = command(commands, "report", _report, "a bundle for a bug report, without your text")
    report.add_argument(
        "--script", metavar="FILE", help="the script: counts, library classes and sizes are taken from it"
    )
    report.add_argument("--traceback", metavar="FILE", help="the log: numbers and library frames are taken from it")
    report.add_argument("--python", metavar="PATH", help="the interpreter that runs your scripts")
    report.add_argument("--no-check", action="store_true", help="leave out what `oom-doctor check` finds")
    report.add_argument("--write", metavar="OUT", help="write it to this new file instead of printing it")


def _check(options: argparse.Namespace) -> int:
    from oomdoctor import checkup

    checks = checkup.checkup(options.python)
    data = {"checks": [c.model_dump(mode="json") for c in checks], "ok": all(c.state != "fails" for c in checks)}
    print(json.dumps(data) if options.json else checkup.text(checks))
    return 0 if data["ok"] else 1


def _report(options: argparse.Namespace) -> int:
    from oomdoctor.bundle import bundle

    script, traceback = (_text(path) for path in (options.script, options.traceback))
    data = bundle(script, traceback, python=options.python, check=not options.no_check)
    if options.write:
        path = Path(options.write)
        if path.exists():
            raise WouldOverwrite(f"{path} exists; nothing was written. Choose another name for the report.")
        path.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
        print(f"{path} is written. Read it before you send it: it holds versions, sizes and numbers.", file=sys.stderr)
    if not options.write or options.json:
        print(json.dumps(data) if options.json else json.dumps(data, indent=2))
    return 0


def _text(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read ({error.strerror}). Give the path of a text file.") from None
