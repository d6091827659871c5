"""What one virtual run knows about loading: the bundle it was given, its notes, and how it makes tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from oomdoctor.loading.entries import ModelFiles
from oomdoctor.loading.repos import Repos, UnknownRepo
from oomdoctor.loading.snapshot import write_snapshot

CPU = torch.device("cpu")


class MissingModel(BaseException):
    """A model that nothing describes was loaded; ``str()`` says so with the ways out.

    Not an ``Exception``: on the user's machine that load succeeds, so no handler of the script should see it fail.
    """


class Session:
    """One per process. ``notes`` is the run's list of assumptions, in sentences; each is added once."""

    def __init__(self, bundle: dict[str, Any], notes: list[str]) -> None:
        cache = bundle.get("hf_cache")
        self.scratch = Path(bundle["scratch"])
        self.repos = Repos(
            Path(bundle["catalogue"]),
            [Path(folder) for folder in bundle.get("configs") or ()],
            bundle.get("like") or {},
            Path(cache) if cache else None,
        )
        self.notes = notes
        self.image_size: tuple[int, int] = tuple(bundle.get("image_size") or (1024, 1024))
        """(height, width) of pictures that cannot be read."""
        self._snapshots: dict[str, Path] = {}
        self._files: dict[str, ModelFiles] = {}

    def note(self, sentence: str) -> None:
        """Tell the reader of the report what was assumed."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def files(self, model: str) -> ModelFiles:
        """What is known about a model. Raises UnknownRepo."""
        found = self._files.get(model)
        if found is None:
            found = self._files[model] = self.repos.find(model)
            for sentence in found.assumptions:
                self.note(sentence)
        return found

    def snapshot(self, model: str) -> Path:
        """The folder that stands for a model: its own when complete, a scratch one else. Raises UnknownRepo."""
        folder = self._snapshots.get(model)
        if folder is None:
            folder = self._snapshots[model] = write_snapshot(self.files(model), self.scratch)
        return folder

    def known(self, model: str) -> bool:
        """Whether something describes the model."""
        try:
            self.files(model)
        except UnknownRepo:
            return False
        return True

    def in_scratch(self, file: str | os.PathLike[str]) -> bool:
        return os.path.abspath(file).startswith(str(self.scratch.absolute()) + os.sep)

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype, device: Any = CPU, host: str = "mapped") -> Any:
        """A tensor without values, as one read from a checkpoint file."""
        from oomdoctor.vgpu.tensor import empty_virtual

        return empty_virtual(tuple(shape), dtype, device if isinstance(device, torch.device) else _device(device), host)


_session: Session | None = None


def current() -> Session:
    """The session of this process. Raises RuntimeError before ``install``."""
    if _session is None:
        raise RuntimeError("oomdoctor.loading is not installed in this process")
    return _session


def start(bundle: dict[str, Any], notes: list[str]) -> Session:
    """Make the session of this process."""
    global _session
    _session = Session(bundle, notes)
    return _session


def _device(device: Any) -> torch.device:
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device or "cpu")
