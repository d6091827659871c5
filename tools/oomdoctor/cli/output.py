"""What a command prints: JSON or text on stdout, everything else on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oomdoctor.errors import WouldOverwrite
from oomdoctor.values import Value


def progress(options: argparse.Namespace) -> Callable[[str, str], None] | None:
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


def show(options: argparse.Namespace, value: Value, text: str) -> None:
    show_data(options, value.model_dump(mode="json"), text)


def show_data(options: argparse.Namespace, data: dict[str, Any], text: str) -> None:
    if not options.json and sys.stderr.isatty():
        print("\r\x1b[2K", end="", file=sys.stderr)
    print(json.dumps(data) if options.json else text)


def write_script_file(options: argparse.Namespace, data: bytes) -> None:
    """Write the patched script atomically; an existing file only when asked, and with a copy kept."""
    from oomdoctor.writing import write_script

    path = Path(options.write)
    if path.exists() and not options.overwrite:
        raise WouldOverwrite(f"{path} exists; nothing was written. Choose another name or add --overwrite.")
    write_script(path, data)
    print(f"written: {path}", file=sys.stderr)
