"""Readers of weight files that read names, types and shapes only: safetensors, and pickles by ``torch.load``.

A tensor of up to 16 elements of a real file keeps its values (LoRA alphas, flags: they steer the loaders); everything
larger comes back without values, on file pages (``mapped``) where the real reader maps the file.
"""

from __future__ import annotations

import functools
import math
import os
import zipfile
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch

from oomdoctor.loading import entries, hooks, saved, session, snapshot, tables

SMALL = 16
"""Elements up to which a tensor of a real file is read."""
_READ_WHOLE = 1 << 20
"""Pickles up to this many bytes are read as they are."""


class SafeOpen:
    """Stands in for ``safetensors.safe_open`` (framework ``pt``)."""

    original: Any = None

    def __new__(cls, filename: Any, framework: str = "pt", device: Any = "cpu", **options: Any) -> Any:
        """Other frameworks than torch get the real reader, but never on a marker."""
        if framework not in ("pt", "torch", "pytorch"):
            return cls.original(filename, framework=framework, device=device, **options)
        return super().__new__(cls)

    def __init__(self, filename: Any, framework: str = "pt", device: Any = "cpu", **options: Any) -> None:
        self._file = os.fspath(filename)
        if not os.path.isfile(self._file):
            raise FileNotFoundError(f"No such file or directory: {self._file}")
        self._device = device
        self._host = "anonymous" if options.get("backend") == "pread" else "mapped"
        self._is_marker = snapshot.read_marker(self._file) is not None
        self._table, self._metadata = tables.read(self._file)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def keys(self) -> list[str]:
        return list(self._table)

    offset_keys = keys

    def metadata(self) -> dict[str, str]:
        return dict(self._metadata)

    def get_tensor(self, name: str) -> Any:
        if name not in self._table:
            raise KeyError(f"File does not contain tensor {name}")
        dtype, shape = self._table[name]
        if not self._is_marker and math.prod(shape) <= SMALL:
            with self.original(self._file, framework="pt", device="cpu") as real:
                small = real.get_tensor(name)
            return small if str(self._device) == "cpu" else small.to(self._device)
        return session.current().tensor(shape, dtype, self._device, self._host)

    def get_tensors(self) -> dict[str, Any]:
        return {name: self.get_tensor(name) for name in self._table}

    def get_slice(self, name: str) -> Slice:
        if name not in self._table:
            raise KeyError(f"File does not contain tensor {name}")
        return Slice(self, name, *self._table[name])


class Slice:
    """A tensor of a file that is not read before it is indexed."""

    def __init__(self, file: SafeOpen, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self._file, self._name, self._dtype, self._shape = file, name, dtype, shape

    def get_shape(self) -> list[int]:
        return list(self._shape)

    def get_dtype(self) -> str:
        """As the file format names it: ``BF16``."""
        return tables.TYPE_NAMES[self._dtype]

    @property
    def shape(self) -> list[int]:
        return self.get_shape()

    def __getitem__(self, index: Any) -> Any:
        whole = self._file.get_tensor(self._name)
        return whole if index is Ellipsis else whole[index]


def patch_safetensors(module: ModuleType) -> None:
    """After ``import safetensors``."""
    if getattr(module, "safe_open", SafeOpen) is SafeOpen:
        return
    SafeOpen.original = module.safe_open
    hooks.replace(module, "safe_open", SafeOpen)


def patch_safetensors_torch(module: ModuleType) -> None:
    """After ``import safetensors.torch``."""
    original_load = module.load

    def load_file(filename: Any, device: Any = "cpu", **options: Any) -> dict[str, Any]:
        with SafeOpen(filename, framework="pt", device=device, **options) as file:
            return file.get_tensors()

    def load(data: bytes) -> dict[str, Any]:
        marker = snapshot.parse_marker(data)
        if marker is None:
            return {name: valueless(tensor, "anonymous") for name, tensor in original_load(data).items()}
        make = session.current().tensor
        return {n: make(shape, dtype, host="anonymous") for n, (dtype, shape) in tables.of_marker(marker).items()}

    hooks.replace(module, "safe_open", SafeOpen)
    hooks.replace(module, "load_file", load_file)
    hooks.replace(module, "load", load)


def valueless(value: Any, host: str) -> Any:
    """``value`` with every large plain tensor in it replaced by one without values, containers kept."""
    if isinstance(value, torch.Tensor):
        if (
            value.numel() <= SMALL
            or value.layout != torch.strided
            or type(value) not in (torch.Tensor, torch.nn.Parameter)
        ):
            return value.clone() if type(value) is torch.Tensor else value
        out = session.current().tensor(tuple(value.shape), value.dtype, host=host)
        return torch.nn.Parameter(out, value.requires_grad) if isinstance(value, torch.nn.Parameter) else out
    if isinstance(value, dict):
        for key in list(value):
            value[key] = valueless(value[key], host)
        return value
    if isinstance(value, list):
        value[:] = [valueless(item, host) for item in value]
        return value
    if type(value) is tuple:
        return tuple(valueless(item, host) for item in value)
    return value


def patch_torch_load() -> None:
    """``torch.load`` for markers and for large files on disk; buffers and small files are read as ever."""
    original: Callable[..., Any] = torch.load
    if getattr(original, "__oomdoctor__", False):
        return

    @functools.wraps(original)
    def load(f: Any, map_location: Any = None, *args: Any, **options: Any) -> Any:
        path = os.fspath(f) if isinstance(f, (str, os.PathLike)) else None
        if path is None and (kept := _marker_in(f)) is not None:
            return saved.restore(kept, map_location)
        if path is None or not os.path.isfile(path):
            return original(f, map_location, *args, **options)
        marker = snapshot.read_marker(path)
        if marker is not None and marker["kind"] == saved.KIND:
            return saved.restore(marker, map_location)
        host = "mapped" if options.get("mmap") else "anonymous"
        if marker is not None:
            device = map_location if isinstance(map_location, (str, torch.device)) else "cpu"
            make = session.current().tensor
            table = tables.of_marker(marker)
            flat = {n: make(shape, dtype, device, host) for n, (dtype, shape) in table.items()}
            return _nested(flat, marker.get("nested") or ())
        if os.path.getsize(path) <= _READ_WHOLE or not zipfile.is_zipfile(path):
            return original(f, map_location, *args, **options)
        options["mmap"] = True
        loaded = valueless(original(f, "cpu", *args, **options), host)
        return loaded if str(map_location or "cpu") == "cpu" else _moved(loaded, map_location)

    load.__oomdoctor__ = True  # type: ignore[attr-defined]
    torch.load = load


def _marker_in(file: Any) -> dict[str, Any] | None:
    """The marker in an open file or buffer, which is then read past; None (and nothing read) when it holds another thing."""
    if not hasattr(file, "read") or not hasattr(file, "seek"):
        return None
    start = file.tell()
    raw = file.read(len(entries.MAGIC))
    if raw == entries.MAGIC:
        return snapshot.parse_marker(raw + file.read())
    file.seek(start)
    return None


def _nested(flat: dict[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    """``flat`` with the keys ``group.name`` moved into dictionaries of their own, as some pickles are laid out."""
    out = {k: v for k, v in flat.items() if k.split(".", 1)[0] not in groups}
    for group in groups:
        out[group] = {k[len(group) + 1 :]: v for k, v in flat.items() if k.startswith(f"{group}.")}
    return out


def _moved(value: Any, place: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(place) if isinstance(place, (str, torch.device)) else value
    if isinstance(value, dict):
        return {key: _moved(item, place) for key, item in value.items()}
    return value
