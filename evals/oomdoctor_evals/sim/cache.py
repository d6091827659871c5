"""Results by content: the same question to the same simulator is asked once. Lives in a git-ignored folder."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import oomdoctor

TOOLS = Path(oomdoctor.__file__).parent
_OURS = tuple(Path(__file__).parent / name for name in ("child.py", "observer.py", "simulator.py"))


def default_folder() -> Path:
    """``$OOM_DOCTOR_EVALS_CACHE``, or ``.evals-cache`` where the command is run."""
    return Path(os.environ.get("OOM_DOCTOR_EVALS_CACHE", ".evals-cache")).resolve()


def digest_of(*places: Path) -> str:
    """Of the files, and of all Python, JSON and CSV files below the folders, by content."""
    total = hashlib.sha256()
    for place in places:
        folder = place if place.is_dir() else place.parent
        files = [place] if place.is_file() else place.rglob("*")
        for path in sorted(p for p in files if p.suffix in (".py", ".json", ".csv")):
            total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


@functools.cache
def simulator_digest() -> str:
    """What the figures of a virtual run depend on: the virtual card, the loaders, the runner, our observer, versions."""
    code = digest_of(TOOLS / "vgpu", TOOLS / "loading", TOOLS / "trial", TOOLS / "models", TOOLS / "hardware", *_OURS)
    return hashlib.sha256(f"{code} {sorted(versions().items())}".encode()).hexdigest()[:16]


@functools.cache
def tools_digest() -> str:
    """What the answers of our tools depend on: everything of ours."""
    return hashlib.sha256(f"{digest_of(TOOLS)} {sorted(versions().items())}".encode()).hexdigest()[:16]


@functools.cache
def versions() -> dict[str, str | None]:
    """Installed versions of what takes part in a virtual run."""
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in ("torch", "diffusers", "transformers", "accelerate", "peft", "torchao", "bitsandbytes", "gguf"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


class Cache:
    """A folder of JSON files named by the hash of what they answer.

    ``stale_ok``: take answers of other simulator versions too (while a suite is being written; never for a report).
    """

    def __init__(self, folder: Path | None, *, stale_ok: bool = False) -> None:
        self.folder = folder
        self.stale_ok = stale_ok
        self.hits = 0
        self.misses = 0

    def get(self, question: dict[str, Any], version: str) -> dict[str, Any] | None:
        """The stored answer, None when there is none for that version."""
        if self.folder is None:
            return None
        try:
            stored: dict[str, Any] = json.loads(self._path(question).read_text())
        except (OSError, ValueError):
            stored = {}
        if stored and (self.stale_ok or stored.get("version") == version):
            self.hits += 1
            answer: dict[str, Any] = stored["answer"]
            return answer
        self.misses += 1
        return None

    def put(self, question: dict[str, Any], version: str, answer: dict[str, Any]) -> None:
        """Store atomically; several processes may write at once."""
        if self.folder is None:
            return
        path = self._path(question)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w") as file:
            json.dump({"version": version, "answer": answer}, file)
        os.replace(name, path)

    def _path(self, question: dict[str, Any]) -> Path:
        assert self.folder is not None
        key = key_of(question)
        return self.folder / key[:2] / f"{key[2:]}.json"


def key_of(question: dict[str, Any]) -> str:
    """The name under which the answer to a question is kept."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:34]
