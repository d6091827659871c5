"""Which interpreter runs the user's scripts when nobody named one.

The tool may live in an environment of its own (a plugin, uvx, pipx) that has no torch. Then the interpreter is looked for
where a person would expect it: the environment that is active, then what ``python3`` means on the path. Never in the
folder that is being worked in: what lies there may be a stranger's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "OOM_DOCTOR_PYTHON"
_ASK = "import importlib.util as u; print(u.find_spec('torch') is not None and u.find_spec('diffusers') is not None)"
_SECONDS = 10.0


def default_python(environment: Mapping[str, str] | None = None) -> str | None:
    """The path of an interpreter with torch and diffusers, from ``environment`` (default: this process's).

    None stands for this interpreter: it has torch, or nothing better was found.
    """
    env = os.environ if environment is None else environment
    if env.get(VARIABLE):
        return env[VARIABLE]
    if find_spec("torch") is not None:
        return None
    return next((path for path in _candidates(env) if _has_torch(path)), None)


def _candidates(env: Mapping[str, str]) -> Iterator[str]:
    """Interpreters in the order of likelihood, without this one and each only once."""
    windows = sys.platform == "win32"
    inside = Path("Scripts", "python.exe") if windows else Path("bin", "python")
    names = ("python.exe",) if windows else ("python3", "python")
    places = [Path(env[name]) / inside for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if env.get(name)]
    for folder in env.get("PATH", "").split(os.pathsep):
        if os.path.isabs(folder):  # an empty or relative entry means the folder that is being worked in
            places += [Path(folder) / name for name in names]
    seen = {os.path.abspath(sys.executable or "")}
    for place in places:
        path = os.path.abspath(place)
        if path not in seen and os.access(path, os.X_OK) and not os.path.isdir(path):
            seen.add(path)
            yield path


def _has_torch(python: str) -> bool:
    try:
        done = subprocess.run(
            [python, "-I", "-c", _ASK], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == "True"
