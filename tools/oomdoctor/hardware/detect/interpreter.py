"""Versions of the libraries in the user's interpreter, read from their metadata: nothing of theirs is imported."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata

from oomdoctor.errors import BadInterpreter

DISTRIBUTIONS = (
    "torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "peft", "bitsandbytes",
    "torchao", "gguf", "optimum-quanto", "kernels", "xformers", "flash-attn", "sageattention",
)  # fmt: skip
"""What is looked up; ``python`` is added to the answer."""

_SECONDS = 30.0
# The working folder is taken off the path first: a json.py lying there must not be run.
_PROGRAM = """
import sys
sys.path[:] = [p for p in sys.path if p]
import json, platform
from importlib import metadata
found = {"python": platform.python_version()}
for name in json.loads(sys.argv[1]):
    try:
        found[name] = metadata.version(name)
    except Exception:
        found[name] = None
print(json.dumps(found))
"""
_FOLDERS = "import sys, json; print(json.dumps(sys.path))"


def find_interpreter(python: str | None) -> str:
    """The absolute path of ``python`` (a path, or a command name), this interpreter for None.

    Raises :class:`BadInterpreter` when there is no such program.
    """
    if python is None:
        return sys.executable
    expanded = os.path.expanduser(python)
    if os.path.isdir(expanded):
        inside = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
        raise BadInterpreter(
            f"{python} is a folder. Give the interpreter inside it, probably {os.path.join(python, *inside)}."
        )
    found = shutil.which(expanded)
    if not found:
        why = "may not be executed" if os.path.exists(expanded) else "does not exist"
        raise BadInterpreter(
            f"The interpreter {python} {why}. Give the one that runs your script, as `which python` prints it "
            "in your environment, with --python."
        )
    return os.path.abspath(found)


def installed_versions(python: str | None = None) -> tuple[str, dict[str, str | None]]:
    """(path of the interpreter, distribution -> version or None when absent), ``python`` among them.

    Raises :class:`BadInterpreter` when the program is missing, hangs, or is not a Python of 3.8 or later.
    """
    path = find_interpreter(python)
    # Not realpath: the interpreters of all virtual environments are links to the same file.
    if os.path.abspath(path) == os.path.abspath(sys.executable or ""):
        return path, own_versions()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "__PYVENV_LAUNCHER__")}
    try:
        done = subprocess.run(
            [path, "-c", _PROGRAM, json.dumps(DISTRIBUTIONS)],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, text=True, env=environment, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BadInterpreter(
            f"{path} did not answer within {_SECONDS:.0f} s. Check that it is a Python interpreter."
        ) from None
    except OSError as error:
        raise BadInterpreter(f"{path} cannot be started ({error.strerror}). Give another one with --python.") from None
    found = _answer(done.stdout) if done.returncode == 0 else None
    if found is None:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1][:200]
        raise BadInterpreter(f"{path} does not behave like Python 3.8 or later ({said}). Give another with --python.")
    return path, found


def libraries_of(python: str | None = None) -> dict[str, str | None]:
    """Versions that decide how a script is written: those of the interpreter that runs it; none of one that has no
    diffusers, which therefore is not that interpreter. Raises as :func:`installed_versions`."""
    found = installed_versions(python)[1]
    return found if found.get("diffusers") is not None else {}


def library_folders(python: str | None = None) -> tuple[str, ...]:
    """Where the interpreter's libraries are installed (``site-packages``): their names there change with a version.

    Empty when the interpreter does not say.
    """
    path = find_interpreter(python)
    if os.path.abspath(path) == os.path.abspath(sys.executable or ""):
        found = sys.path
    else:
        try:
            done = subprocess.run(
                [path, "-c", _FOLDERS], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, text=True, check=False
            )  # fmt: skip
            found = json.loads(done.stdout)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return ()
    return tuple(p for p in found if os.path.basename(p) in ("site-packages", "dist-packages"))


def own_versions() -> dict[str, str | None]:
    """The same for the interpreter that runs this."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except (metadata.PackageNotFoundError, OSError, ValueError, TypeError, KeyError):  # absent, or broken metadata
            found[name] = None
    return found


def _answer(text: str) -> dict[str, str | None] | None:
    try:
        found = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None
    if not isinstance(found, dict) or "python" not in found:
        return None
    return {str(k): v if isinstance(v, str) else None for k, v in found.items()}
