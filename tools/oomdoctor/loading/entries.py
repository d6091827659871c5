"""What is known about one model repository: its pipeline class and, per component, class, config and dtype.

The same facts whether they come from our catalogue (one compact JSON file per model) or from a folder of the
repository's own JSON files. No torch, no pydantic.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Source = Literal["folder", "cache", "configs", "catalogue"]

FILELESS_WORDS = ("Tokenizer", "Processor", "FeatureExtractor")
"""In a component's class name: its files are vocabularies or preprocessing settings, not weights."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".msgpack", ".h5", ".onnx")
_CONFIG_FILES = ("config.json", "scheduler_config.json", "preprocessor_config.json", "guider_config.json")
MAGIC = b"oom-doctor marker\n"
"""First bytes of a file that stands for a weight file (see ``snapshot``)."""
_HEADER_LIMIT = 100 * 2**20
_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn"}


@dataclass(frozen=True)
class Component:
    """One entry of ``model_index.json`` (or the repository itself, named ``.``, for a model that stands alone)."""

    name: str
    library: str
    """As ``model_index.json`` says: ``diffusers``, ``transformers``, or a pipeline folder of diffusers."""
    class_name: str
    config: dict[str, Any] | None = None
    """What the class is built from; None when no file says."""
    dtype: str | None = None
    """Floating dtype of the weights as published (``bfloat16``); None when nothing says."""
    params: int | None = None
    """Elements of all parameters, tied ones once; None for what has none or was not counted."""
    buffers: int = 0
    """Elements of persistent buffers."""
    max_length: int | None = None
    """Of a tokenizer: ``model_max_length``."""

    @property
    def has_weights(self) -> bool:
        return self.config is not None and self.config_file == "config.json"

    @property
    def config_file(self) -> str:
        """Name of the JSON file that the component's class reads."""
        if "Scheduler" in self.class_name:
            return "scheduler_config.json"
        if "Guidance" in self.class_name or "Guider" in self.class_name:
            return "guider_config.json"
        if self.is_text_side:
            return "tokenizer_config.json" if "Tokenizer" in self.class_name else "preprocessor_config.json"
        return "config.json"

    @property
    def is_transformers(self) -> bool:
        """A model of transformers, wherever its class lives: names its weight file as transformers does."""
        config = self.config or {}
        return self.library == "transformers" or "model_type" in config or "architectures" in config

    @property
    def is_text_side(self) -> bool:
        """A tokenizer, processor or feature extractor."""
        return any(word in self.class_name for word in FILELESS_WORDS)


@dataclass(frozen=True)
class ModelFiles:
    """A model repository as far as it is known without its weights."""

    model: str
    """As it was asked for."""
    known_as: str
    """The catalogue id or folder that the facts come from."""
    source: Source
    pipeline_class: str | None
    components: tuple[Component, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    """Plain values of ``model_index.json`` (``boundary_ratio`` ...)."""
    absent: tuple[str, ...] = ()
    """Components that the repository declares as null."""
    connected: dict[str, str] = field(default_factory=dict)
    """Prefix -> repository that the model card names for it: combined pipelines load their ``prior`` from there."""
    gated: bool = False
    variants: tuple[str, ...] = ()
    folder: str | None = None
    """Where the repository's own files are, if they are anywhere."""
    assumptions: tuple[str, ...] = ()
    """What was taken on trust to get here, in sentences."""

    def component(self, name: str) -> Component | None:
        return next((c for c in self.components if c.name == name), None)


def from_catalogue(entry: dict[str, Any], asked: str, assumptions: tuple[str, ...] = ()) -> ModelFiles:
    """The value for one file of the catalogue."""
    parts, absent = [], []
    for name, part in entry["components"].items():
        if part is None:
            absent.append(name)
            continue
        library, class_name = part["class"].rsplit(".", 1)
        known = {k: part[k] for k in ("config", "dtype", "params", "buffers", "max_length") if k in part}
        parts.append(Component(name, library, class_name, **known))
    return ModelFiles(
        model=asked,
        known_as=entry["id"],
        source="catalogue",
        pipeline_class=entry["pipeline"],
        components=tuple(parts),
        settings=entry.get("settings", {}),
        absent=tuple(absent),
        connected=entry.get("connected", {}),
        gated=entry.get("gated", False),
        variants=tuple(entry.get("variants", ())),
        assumptions=assumptions,
    )


class BadFile(ValueError):
    """A file is there but is not what its name says."""


def describes_model(folder: Path) -> bool:
    """Whether a folder holds the JSON files of a pipeline or of a single model."""
    return (folder / "model_index.json").is_file() or (folder / "config.json").is_file()


def from_folder(folder: Path, asked: str, source: Source, assumptions: tuple[str, ...] = ()) -> ModelFiles:
    """The value for a folder of a repository's own files. Raises BadFile for JSON that is not what it should be."""
    pipeline: str | None = None
    parts: list[Component] = []
    settings: dict[str, Any] = {}
    absent: list[str] = []
    if (folder / "model_index.json").is_file():
        index = read_json(folder / "model_index.json")
        named = index.get("_class_name")
        pipeline = named[-1] if isinstance(named, list) else named
        for name, value in index.items():
            if name.startswith("_"):
                continue
            if isinstance(value, list) and len(value) == 2 and all(v is None or isinstance(v, str) for v in value):
                if value[0] is None or value[1] is None:
                    absent.append(name)
                else:
                    parts.append(_part(folder / name, name, value[0], value[1]))
            else:
                settings[name] = value
    else:
        parts.append(_lone(folder, "."))
    return ModelFiles(
        model=asked,
        known_as=str(folder),
        source=source,
        pipeline_class=pipeline,
        components=tuple(parts),
        settings=settings,
        absent=tuple(absent),
        folder=str(folder),
        assumptions=assumptions,
    )


def lone_model(folder: Path) -> Component | None:
    """The model whose ``config.json`` lies in this folder, or None."""
    return _lone(folder, ".") if (folder / "config.json").is_file() else None


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises BadFile with the file's name for anything else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadFile(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadFile(f"{file} should hold a JSON object, not a {type(value).__name__}")
    return value


def _lone(folder: Path, name: str) -> Component:
    config = read_json(folder / "config.json")
    if "_class_name" in config:
        return _part(folder, name, "diffusers", config["_class_name"])
    return _part(folder, name, "transformers", (config.get("architectures") or ["AutoModel"])[0])


def _part(folder: Path, name: str, library: str, class_name: str) -> Component:
    file = next((folder / f for f in _CONFIG_FILES if (folder / f).is_file()), None)
    config = None if file is None else read_json(file)
    limit = None
    if (folder / "tokenizer_config.json").is_file():
        limit = read_json(folder / "tokenizer_config.json").get("model_max_length")
        limit = limit if isinstance(limit, int) and 0 < limit < 10**6 else None
    dtype = None
    if config is not None:
        stated = config.get("torch_dtype") or config.get("dtype")
        dtype = _dtype_on_disk(folder) or (stated.removeprefix("torch.") if isinstance(stated, str) else None)
    return Component(name, library, class_name, config=config, dtype=dtype, max_length=limit)


def _dtype_on_disk(folder: Path) -> str | None:
    """Dtype of most bytes of the first safetensors file of a folder, from its header; None when there is none."""
    files = sorted(folder.glob("*.safetensors"), key=lambda f: (f.name.count("."), f.name))
    for file in files:
        try:
            stored = _sizes_in_marker(file)
            if stored is None:
                header = safetensors_header(file)
                tensors = [t for name, t in header.items() if name != "__metadata__"]
                stored = [(t["dtype"], t["data_offsets"][1] - t["data_offsets"][0]) for t in tensors]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        sizes: dict[str, int] = {}
        for kind, size in stored:
            sizes[kind] = sizes.get(kind, 0) + size
        if sizes:
            return _TYPES.get(max(sizes, key=lambda t: sizes[t]))
    return None


def _sizes_in_marker(file: Path) -> list[tuple[str, int]] | None:
    """(type, elements) of the tensors that a marker lists; None for a file that is no such marker."""
    with open(file, "rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            return None
        content = json.loads(stream.read())
    return [(kind, math.prod(shape)) for kind, shape in content.get("tensors", {}).values()]


def safetensors_header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: name -> dtype, shape, data_offsets; plus ``__metadata__``.

    Raises BadFile when the file is not one. Nothing past the header is read.
    """
    with open(file, "rb") as stream:
        first = stream.read(8)
        size = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 2 <= size <= _HEADER_LIMIT:
            raise BadFile(f"{file} is not a safetensors file")
        raw = stream.read(size)
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise BadFile(f"{file} is not a safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise BadFile(f"{file} is not a safetensors file")
    return header
