"""Writes constraints.txt from pip's own resolves, one report per Python version.

In a fresh virtual environment of each Python, oldest first:

    pip install --dry-run --report REPORT.json "torch==2.13.0" -e ".[dev]"

and then, from the repository's root:

    python .ci/constraints.py REPORT.json [REPORT.json ...] > constraints.txt

The oldest Python keeps pins of its own, with a marker; the next one's stand for it and all newer ones (they install
there too, and one version is tested more than two). Later reports only add what those Pythons need besides.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HEAD = """\
# Every package that the README's two commands install, at the versions that the tests run with.
# Written by .ci/constraints.py from pip's own resolves; edit pyproject.toml, resolve again, and run the tests.
"""


def pins(report: Path) -> tuple[tuple[int, int], dict[str, str]]:
    """The Python version of a report, and package name -> version without a local part."""
    content = json.loads(report.read_text("utf-8"))
    python = tuple(int(part) for part in content["environment"]["python_version"].split("."))
    found = {}
    for item in content["install"]:
        meta = item["metadata"]
        name = meta["name"].lower().replace("_", "-").replace(".", "-")
        found[name] = meta["version"].split("+")[0]
    found.pop("oom-doctor", None)
    return (python[0], python[1]), found


def lines(resolves: list[tuple[tuple[int, int], dict[str, str]]]) -> list[str]:
    """One or more requirement lines per package, with markers where the Pythons need different versions."""
    resolves = sorted(resolves, key=lambda pair: pair[0])
    out = []
    for name in sorted({name for _, found in resolves for name in found}):
        chosen: list[tuple[tuple[int, int], str]] = []
        for index, (python, found) in enumerate(resolves):
            if name in found and (not chosen or (index == 1 and chosen[0][1] != found[name])):
                chosen.append((python, found[name]))
        for place, (python, version) in enumerate(chosen):
            limits = []
            if place > 0:
                limits.append(f'python_version >= "{python[0]}.{python[1]}"')
            if place + 1 < len(chosen):
                newer = chosen[place + 1][0]
                limits.append(f'python_version < "{newer[0]}.{newer[1]}"')
            out.append(f"{name}=={version}" + (f"; {' and '.join(limits)}" if limits else ""))
    return out


if __name__ == "__main__":
    print(HEAD + "\n".join(lines([pins(Path(argument)) for argument in sys.argv[1:]])))
