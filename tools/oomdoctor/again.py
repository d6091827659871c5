"""What ``oom-doctor measure`` printed for the same question before, while everything that it rests on is unchanged.

A second call answers at once: nothing of ours but this file is imported, and nothing but the standard library. The
question is the arguments with the content of the files they name, the folder and the environment variables that choose
models, caches and interpreters. What the answer rests on is written down beside it as *witnesses*, files and folders
with their state: our own code, the libraries of the user's interpreter, the folders of the models, the devices of the
machine. One that changed makes the answer void.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

SWITCH = "OOM_DOCTOR_CACHE"
"""Environment variable: the folder of kept measurements; empty switches them off."""
KEPT = 64
"""Answers that stay; the ones that were written first go."""
_ROOT = Path(__file__).resolve().parent
_VARIABLES = ("HF_", "OOM_DOCTOR_", "CUDA_", "HIP_", "XDG_CACHE_HOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PATH", "HOME",
              "PYTHONPATH", "PYTORCH_", "DIFFUSERS_", "TRANSFORMERS_", "HUGGINGFACE_")  # fmt: skip
_UNSAID = ("--progress", "--parent-watch", "--debug")
"""Options that do not change what is printed."""
_DEVICES = (
    "/proc/sys/kernel/random/boot_id",
    "/sys/class/drm",
    "/proc/driver/nvidia/gpus",
    "/proc/driver/nvidia/version",
)
_MOST_FILES = 20_000

State = list[Any]
"""What is compared of a witness: kind and, of a file, its size and time of change; of a folder, a digest of names."""


def folder() -> Path | None:
    """Where measurements and answers are kept; None when the cache is off."""
    chosen = os.environ.get(SWITCH)
    if chosen is not None:
        return Path(chosen) if chosen else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oom-doctor" / "measurements"


def answer(arguments: Sequence[str]) -> str | None:
    """What the command printed before, None when it has to be run."""
    with contextlib.suppress(Exception):  # anything odd about a kept answer means: run the command
        file = _file(arguments)
        if file is not None:
            kept = json.loads(gzip.decompress(file.read_bytes()))
            if all(state(place) == known for place, known in kept["witnesses"].items()):
                return str(kept["text"])
    return None


def keep(arguments: Sequence[str], text: str, places: Iterable[str | os.PathLike[str]]) -> None:
    """Keep what was printed; it rests on ``places`` besides our own code and the machine's devices.

    A folder that cannot be written to is no error: the next call runs again.
    """
    with contextlib.suppress(OSError):
        file = _file(arguments)
        if file is None:
            return
        witnesses = {str(place): state(place) for place in (*_DEVICES, _ROOT, *places)}
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        partial.write_bytes(gzip.compress(json.dumps({"witnesses": witnesses, "text": text}).encode(), compresslevel=3))
        partial.replace(file)
        for old in sorted(file.parent.glob("*.json.gz"), key=lambda f: f.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)


def state(place: str | os.PathLike[str]) -> State:
    """How a file or folder is now; ``["absent"]`` when there is none. A folder counts with all that is below it."""
    try:
        found = os.stat(place)
    except OSError:
        return ["absent"]
    if not os.path.isdir(place):
        return ["file", found.st_size, found.st_mtime_ns]
    digest = hashlib.sha256()
    for count, line in enumerate(_listing(os.fspath(place))):
        if count > _MOST_FILES:
            return ["folder", found.st_mtime_ns, None]
        digest.update(line.encode())
    return ["folder", digest.hexdigest()]


def _listing(place: str) -> Iterator[str]:
    """A line per file: path, size, time of change. Of libraries only the names: an installation changes those."""
    libraries = os.path.basename(place) in ("site-packages", "dist-packages") or place.startswith(("/sys/", "/proc/"))
    if libraries:
        yield from sorted(os.listdir(place))
        return
    for root, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = os.path.join(root, name)
            with contextlib.suppress(OSError):
                found = os.stat(path)
                yield f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n"


def _file(arguments: Sequence[str]) -> Path | None:
    place = folder()
    if place is None or "-" in arguments:
        return None
    said = [_content(argument) for argument in arguments if argument not in _UNSAID]
    environment = {k: v for k, v in sorted(os.environ.items()) if k.startswith(_VARIABLES) and k != SWITCH}
    question = [said, os.getcwd(), environment, sys.executable, sys.platform]
    digest = hashlib.sha256(json.dumps(question).encode("utf-8", "surrogatepass")).hexdigest()
    return place / "answers" / f"{digest[:40]}.json.gz"


def _content(argument: str) -> Any:
    """An argument, or what the file or folder that it names holds: the same script elsewhere is the same question."""
    option, sign, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    if os.path.isfile(value) and not os.access(value, os.X_OK):
        return [option, hashlib.sha256(Path(value).read_bytes()).hexdigest()]
    return [argument, state(value)] if os.path.exists(value) else argument
