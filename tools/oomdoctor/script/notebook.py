"""Notebooks: the code cells joined into one text that is Python, and back.

Between two cells stands a line ``# %% [cell N]`` (``N`` counts all cells of the notebook from 0). Lines that only the
notebook understands (``!pip``, ``%env``, ``?help``) become comments that are turned back when the code is written.
"""

from __future__ import annotations

import json
import re
from typing import Any

from oomdoctor.errors import UnreadableFile

_HEADER = "# %% [cell {}]"
_SPLIT = re.compile(r"^# %% \[cell (\d+)\]\n", re.MULTILINE)
_MARK = "#magic: "
_RESTORE = re.compile(rf"^([ \t]*)(?:pass  )?{_MARK}(.*)$")
_TIMED = re.compile(r"^([ \t]*)(%time|%timeit(?:\s+-\w+\s*\d*)*|%prun|%memit)\s+(?=\S)(.+)$")
_TIMED_BACK = re.compile(rf"^([ \t]*)(.*)  {_MARK}<(.*)>$")
_ASSIGNED = re.compile(r"^([ \t]*[\w, ]+=\s*)([!%]\S.*)$")
_ASSIGNED_BACK = re.compile(rf"^([ \t]*[\w, ]+=\s*)None  {_MARK}=(.*)$")
_LINE_MAGIC = re.compile(r"^[ \t]*([!%?]|\w[\w.]*\?{1,2}\s*$)")
_PYTHON_CELLS = frozenset({"time", "timeit", "capture", "prun", "memit", "python", "python3", "skip"})
_ENV = re.compile(r"^\s*%(?:set_)?env\s+(\w+)\s*[= ]\s*(\S.*?)\s*$")


def is_notebook(data: bytes, path: str | None) -> bool:
    """By its name, or by its content when nothing names it."""
    if path is not None:
        return path.lower().endswith(".ipynb")
    return data.lstrip()[:1] == b"{" and b'"nbformat"' in data and b'"cell_type"' in data


def code(data: bytes, name: str) -> tuple[str, dict[str, str]]:
    """The joined code, and the environment variables that ``%env`` sets.

    Raises :class:`UnreadableFile` when it is no notebook.
    """
    notebook = _load(data, name)
    pieces: list[str] = []
    environment: dict[str, str] = {}
    for i, cell in enumerate(_cells(notebook)):
        if cell.get("cell_type") != "code":
            continue
        text, found = _to_python(_cell_text(cell))
        environment.update(found)
        pieces.append(f"{_HEADER.format(i)}\n{text}\n")
    return "".join(pieces), environment


def place(text: str, line: int) -> str:
    """A line of the joined text, as a person finds it in the notebook."""
    lines = text.split("\n")[:line]
    for i in range(len(lines) - 1, -1, -1):
        if match := _SPLIT.match(lines[i] + "\n"):
            return f"cell {int(match[1]) + 1} (of all cells, from 1), line {line - i - 1}"
    return f"line {line}"


def replace_code(data: bytes, text: str) -> bytes:
    """The notebook with the cells' code replaced by those of an edited ``code()`` text."""
    notebook = _load(data, "the notebook")
    cells = _cells(notebook)
    parts = _SPLIT.split(text)
    for number, body in zip(parts[1::2], parts[2::2], strict=True):
        cell = cells[int(number)]
        key = "source" if "source" in cell else "input"
        new = _from_python(body.removesuffix("\n"))
        if new != _cell_text(cell):
            cell[key] = new.splitlines(keepends=True) if isinstance(cell.get(key), list) else new
    indent = re.match(rb"\{\s*?\n( +|\t+)", data)
    step: int | str | None = None
    if indent:
        step = indent[1].decode() if indent[1].startswith(b"\t") else len(indent[1])
    return (json.dumps(notebook, indent=step, ensure_ascii=False) + ("\n" if data.endswith(b"\n") else "")).encode()


def _load(data: bytes, name: str) -> dict[str, Any]:
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"{name} is not a notebook: {error}. Save it again, or export it as a script.") from error
    if not isinstance(notebook, dict) or not _cells(notebook):
        raise UnreadableFile(f"{name} is JSON but holds no notebook cells. Hand over the .ipynb file or a .py script.")
    return notebook


def _cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    cells = notebook.get("cells")
    if cells is None:  # format 3
        sheets = notebook.get("worksheets")
        first = sheets[0] if isinstance(sheets, list) and sheets else None
        cells = first.get("cells") if isinstance(first, dict) else None
    return [c for c in cells if isinstance(c, dict)] if isinstance(cells, list) else []


def _cell_text(cell: dict[str, Any]) -> str:
    source = cell.get("source", cell.get("input", ""))
    text = "".join(str(line) for line in source) if isinstance(source, list) else str(source)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _to_python(text: str) -> tuple[str, dict[str, str]]:
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    foreign = first.startswith("%%") and first[2:].split(" ")[0].strip() not in _PYTHON_CELLS
    environment: dict[str, str] = {}
    out = []
    continued = False
    for line in lines:
        if match := _ENV.match(line):
            environment[match[1]] = match[2].strip("\"'")
        if foreign or continued:
            out.append(_MARK + line)
            continued = continued and line.rstrip().endswith("\\")
        elif match := _TIMED.match(line):
            out.append(f"{match[1]}{match[3]}  {_MARK}<{match[2]}>")
        elif _LINE_MAGIC.match(line):
            body = line.lstrip(" \t")
            indent = line[: len(line) - len(body)]
            out.append(f"{indent}{'pass  ' if indent else ''}{_MARK}{body}")
            continued = line.rstrip().endswith("\\")
        elif match := _ASSIGNED.match(line):
            out.append(f"{match[1]}None  {_MARK}={match[2]}")
        else:
            out.append(line)
    return "\n".join(out), environment


def _from_python(text: str) -> str:
    out = []
    for line in text.split("\n"):
        if match := _ASSIGNED_BACK.match(line):
            out.append(match[1] + match[2])
        elif match := _TIMED_BACK.match(line):
            out.append(f"{match[1]}{match[3]} {match[2]}")
        elif match := _RESTORE.match(line):
            out.append(match[1] + match[2])
        else:
            out.append(line)
    return "\n".join(out)
