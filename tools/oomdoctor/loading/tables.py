"""What a weight file holds, without reading it: tensor names, dtypes and shapes."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from oomdoctor.loading import entries, session, snapshot

NAMES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "U16": getattr(torch, "uint16", torch.int16),
    "U32": getattr(torch, "uint32", torch.int32),
    "U64": getattr(torch, "uint64", torch.int64),
}
"""Type names of the safetensors format."""
TYPE_NAMES = {dtype: name for name, dtype in NAMES.items()}

Table = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def read(file: str | os.PathLike[str]) -> tuple[Table, dict[str, str]]:
    """The table and the metadata of a safetensors file or a marker.

    Raises ``entries.BadFile`` for anything else, OSError when there is no such file.
    """
    marker = snapshot.read_marker(file)
    if marker is not None:
        return of_marker(marker), {"format": "pt"}
    header = entries.safetensors_header(Path(file))
    metadata = header.pop("__metadata__", None) or {}
    try:
        table = {name: (NAMES[t["dtype"]], tuple(t["shape"])) for name, t in header.items()}
    except (KeyError, TypeError) as error:
        raise entries.BadFile(f"{file} has a tensor of a type that this version does not know: {error}") from error
    return table, metadata


_built: dict[tuple[str, ...], Table] = {}


def of_marker(marker: dict[str, Any]) -> Table:
    """The table that a marker stands for."""
    if marker["kind"] == "table":
        return {name: (NAMES[t], tuple(shape)) for name, (t, shape) in marker["tensors"].items()}
    key = (marker["library"], marker["class"], marker["config"], str(marker["dtype"]))
    if key not in _built:
        _built[key] = _of_component(marker)
    return _built[key]


def _of_component(marker: dict[str, Any]) -> Table:
    stored = _stored(marker)
    if stored.is_file():
        return {n: (NAMES[t], tuple(shape)) for n, (t, shape) in entries.read_json(stored).items()}
    table = _from_class(marker)
    stored.parent.mkdir(parents=True, exist_ok=True)
    partial = stored.with_name(f".{stored.name}.{os.getpid()}")
    partial.write_text(json.dumps({n: (TYPE_NAMES[t], shape) for n, (t, shape) in table.items()}))
    partial.replace(stored)
    return table


def _stored(marker: dict[str, Any]) -> Path:
    """Where the table of a component is kept between runs: it depends on the config and the libraries' versions."""
    import diffusers
    import transformers

    parts = (
        marker["library"], marker["class"], str(marker["dtype"]), Path(marker["config"]).read_text(encoding="utf-8"),
        torch.__version__, diffusers.__version__, transformers.__version__,
    )  # fmt: skip
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return session.current().scratch / "tables" / f"{digest}.json"


def _from_class(marker: dict[str, Any]) -> Table:
    stated = marker["dtype"]
    if stated is None:
        session.current().note(
            f"nothing says in which type the weights of {marker['model']} ({marker['component']}) are stored; "
            "float32 is assumed, which costs RAM while loading."
        )
    dtype = getattr(torch, stated or "float32")
    module = build(marker["library"], marker["class"], entries.read_json(Path(marker["config"])))
    table: Table = {}
    seen: set[int] = set()
    # A tied weight is stored once. transformers 5 loads with ties undone, so the objects alone do not tell.
    ties = getattr(module, "get_expanded_tied_weights_keys", None)
    copies = set(ties(all_submodels=True)) if ties is not None else set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor) and id(tensor) not in seen and name not in copies:
            seen.add(id(tensor))
            table[name] = (dtype if tensor.is_floating_point() else tensor.dtype, tuple(tensor.shape))
    return table


def find_class(library: str, name: str) -> Any:
    """The class of a component, where ``library`` is what ``model_index.json`` calls it."""
    if library in ("diffusers", "transformers"):
        return getattr(importlib.import_module(library), name)
    for place in (f"diffusers.pipelines.{library}", f"diffusers.pipelines.deprecated.{library}", library):
        try:
            return getattr(importlib.import_module(place), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise session.MissingModel(
        f"The component class {library}.{name} is not in the installed diffusers or transformers. "
        "Use the versions that the script was written for."
    )


def build(library: str, name: str, config: dict[str, Any]) -> Any:
    """A component as an ``nn.Module`` on the meta device: no memory, no values."""
    import transformers

    cls = find_class(library, name)
    config = dict(config)
    config.pop("quantization_config", None)
    with torch.device("meta"), torch.no_grad():
        if issubclass(cls, transformers.PreTrainedModel):
            return cls(cls.config_class.from_dict(config))
        if not hasattr(cls, "from_config"):
            raise session.MissingModel(f"{library}.{name} cannot be built from a config.")
        return cls.from_config(config)
