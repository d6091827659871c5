"""Measurements kept on disk: the second one of the same call is read, not run.

A measurement depends on the generated call, on what describes the models it names (configs, sizes and times of files that
are here), on the card it is timed for, on the versions of the libraries and on our own code: the key is a digest of all
of them, so nothing ever goes stale and nothing has to be cleared by hand.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from oomdoctor.again import SWITCH, folder
from oomdoctor.errors import OomDoctorError
from oomdoctor.hardware.detect.interpreter import library_folders
from oomdoctor.models import hub_folder, resolve
from oomdoctor.trial.calibration import store
from oomdoctor.values import Card, Measurement

KEPT = 64
"""Measurements that stay; the ones that were written first go."""
__all__ = ["SWITCH", "folder", "key", "places", "read", "write"]
NEEDED = ("torch", "diffusers", "transformers")
_ROOT = Path(__file__).resolve().parents[1]


def key(
    source: str,
    *,
    card: Card,
    versions: Mapping[str, str | None],
    configs: Sequence[str] = (),
    like: Mapping[str, str] | None = None,
) -> str | None:
    """The digest of everything that the measurement of the call ``source`` depends on.

    None when the versions of the libraries are not known: then nothing can be reused.
    """
    if not all(versions.get(name) for name in NEEDED):
        return None
    facts = {
        "call": source,
        "card": card.model_dump(mode="json"),
        "versions": {k: v for k, v in sorted(versions.items()) if v},
        "models": [_content(text, configs, like or {}) for text in _texts(source)],
        "code": _code(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def read(name: str | None) -> Measurement | None:
    """The measurement of that key, None when there is none that can be read."""
    place = folder()
    if name is None or place is None:
        return None
    try:
        return Measurement.model_validate_json(gzip.decompress((place / f"{name}.json.gz").read_bytes()))
    except (OSError, EOFError, ValidationError, gzip.BadGzipFile):
        return None


def write(name: str | None, measurement: Measurement) -> None:
    """Keep a measurement. A folder that cannot be written to is no error: the next call runs again."""
    place = folder()
    if name is None or place is None:
        return
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = place / f".{name}.{os.getpid()}"
        partial.write_bytes(gzip.compress(measurement.model_dump_json().encode(), compresslevel=3))
        partial.replace(place / f"{name}.json.gz")
        for old in sorted(place.glob("*.json.gz"), key=lambda f: f.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)


def places(
    source: str, configs: Sequence[str] = (), like: Mapping[str, str] | None = None, python: str | None = None
) -> list[Path]:
    """The files and folders that the measurement of the call ``source`` rests on, whether they are there or not.

    The libraries of the interpreter, what describes the models (local folders, their place in the HF cache, the configs
    folders) and the calibrations of this machine.
    """
    found = [Path(place) for place in (*library_folders(python), *configs)]
    for text in (*_texts(source), *(like or {}).values()):
        if "/" in text or "\\" in text or text.startswith(("~", ".")):
            found.append(Path(text).expanduser().absolute())
            if text.count("/") == 1:
                found.append(hub_folder() / ("models--" + text.replace("/", "--")))
    return [*found, store.folder()]


def _texts(source: str) -> list[str]:
    """The string literals of the call: ids, paths and file names are among them."""
    found = {n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return sorted(found)


def _content(text: str, configs: Sequence[str], like: Mapping[str, str]) -> Any:
    """What ``text`` stands for, if it names a model or something on disk."""
    found: list[Any] = []
    if "/" in text or "\\" in text or text.startswith(("~", ".")):
        with contextlib.suppress(OomDoctorError, OSError, ValueError):
            files = resolve(text, configs_dir=list(configs) or None, like=like.get(text))
            found += [dataclasses.asdict(files), *_stamps(Path(files.folder or ""))] if files.folder else []
            found += [] if files.folder else [dataclasses.asdict(files)]
    with contextlib.suppress(OSError, ValueError):
        if os.path.isfile(text):
            found += list(_stamps(Path(text)))
    return [text, found]


def _stamps(place: Path) -> Iterator[tuple[str, int, int]]:
    """(path, size, time of change) of a file, or of every file below a folder."""
    for file in [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.is_file()):
        state = file.stat()
        yield str(file), state.st_size, state.st_mtime_ns


@cache
def _code() -> str:
    """A digest of our own source files by size and time: another version measures anew."""
    files = sorted(f for f in _ROOT.rglob("*.py") if "__pycache__" not in f.parts)
    stamps = [(str(f.relative_to(_ROOT)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()
