"""``oom-doctor``, with its answers kept: the same question to the same tools is worked out once.

The server starts its command line through this. The key is the content of script and log, the options without the
names of temporary files, and a digest of all our code: another version of the tools asks anew.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

VARIABLE = "OOM_DOCTOR_EVALS_CLI_CACHE"
_SCRIPT_SUFFIXES = (".py", ".ipynb")


def command(folder: Path | None, warm: str | None = None) -> tuple[str, ...]:
    """How a server starts the command line through the cache. ``warm``: the socket of a :mod:`.warm` process."""
    from oomdoctor_evals.sim.cache import default_folder

    place = str(folder or default_folder() / "cli")
    return (sys.executable, "-m", "oomdoctor_evals.agents.cached_cli", place, warm or "-")


def main(argv: list[str]) -> int:
    """``cached_cli FOLDER SOCKET VERB SCRIPT OPTIONS``: print the kept answer, or work it out and keep it."""
    from oomdoctor_evals.sim.cache import Cache, tools_digest

    folder, warm, *arguments = argv
    cache = Cache(None if folder == "-" else Path(folder), stale_ok=os.environ.get("OOM_DOCTOR_EVALS_STALE") == "1")
    question = _question(arguments)
    stored = cache.get(question, tools_digest())
    if stored is None:
        stored = _ask(arguments, warm)
        if stored["status"] in (0, 1):
            cache.put(question, tools_digest(), stored)
    sys.stderr.write(stored["stderr"])
    sys.stdout.write(stored["stdout"])
    return int(stored["status"])


def _ask(arguments: list[str], warm: str) -> dict[str, Any]:
    if warm != "-":
        from oomdoctor_evals.agents.warm import ask

        return ask(warm, arguments)
    from oomdoctor.cli import main as cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli(arguments)
    return {"status": status, "stdout": out.getvalue(), "stderr": err.getvalue()[-20000:]}


def _question(arguments: list[str]) -> dict[str, Any]:
    """The arguments with the content of files in place of their names."""
    parts: list[Any] = []
    for argument in arguments:
        name, sign, value = argument.partition("=")
        path = value if sign else argument
        if argument in ("--parent-watch", "--progress"):
            continue
        if path.endswith((*_SCRIPT_SUFFIXES, ".txt")) and os.path.isfile(path):
            parts.append([name if sign else "", Path(path).read_text(encoding="utf-8", errors="replace")])
        else:
            parts.append(argument)
    return {"cli": parts}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
