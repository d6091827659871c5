"""A scratch snapshot of a model repository: its JSON files are real, its weight files are markers.

Laid out like the Hugging Face cache (``models--org--name/snapshots/<40 hex>/``). A marker is a small file that says
what the weight file of that name would hold; ``tables`` turns it into names, dtypes and shapes. A reader that does not
know markers fails on their first bytes: nothing is ever silently empty. No torch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from oomdoctor.loading.entries import MAGIC, WEIGHT_SUFFIXES, Component, ModelFiles

COMMIT = "0" * 40
VARIANTS = ("fp16", "bf16")
_TRANSFORMERS = ("model.safetensors", "pytorch_model.bin")
_DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def write_marker(file: Path, content: dict[str, Any]) -> None:
    """Make ``file`` a marker, atomically, unless it exists."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_bytes(marker_bytes(content))
    partial.replace(file)


def marker_bytes(content: dict[str, Any]) -> bytes:
    """A marker as it lies in its file."""
    return MAGIC + json.dumps(content).encode()


def parse_marker(raw: bytes) -> dict[str, Any] | None:
    """The content of a marker, None when the bytes are not one."""
    if not raw.startswith(MAGIC):
        return None
    content: dict[str, Any] = json.loads(raw[len(MAGIC) :])
    return content


def read_marker(file: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The content of a marker file, None when the file is something else. Raises OSError when it cannot be read."""
    with open(file, "rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            return None
        return parse_marker(MAGIC + stream.read())


def write_snapshot(files: ModelFiles, scratch: Path) -> Path:
    """The snapshot folder of a model; the model's own folder when that lacks nothing. Idempotent."""
    if files.folder is not None and not _lacking(files):
        return Path(files.folder)
    name = files.model.strip("/").replace("\\", "/").replace("/", "--").replace("~", "").replace(":", "")
    target = scratch / f"models--{name.lstrip('.-')}" / "snapshots" / COMMIT
    target.mkdir(parents=True, exist_ok=True)
    if files.folder is not None:
        _mirror(Path(files.folder), target)
    elif files.pipeline_class is not None:
        _write_json(target / "model_index.json", _index(files))
        if files.connected:
            named = "".join(f"{prefix}:\n- {model}\n" for prefix, model in files.connected.items())
            _write(target / "README.md", f"---\n{named}---\n")
    for part in files.components:
        folder = target / part.name
        folder.mkdir(parents=True, exist_ok=True)
        if files.folder is None:
            _write_config(part, folder)
        if part.has_weights and not _has_weights(folder):
            for file in _marker_names(part):
                write_marker(folder / file, _content(part, folder, files))
    return target


def _content(part: Component, folder: Path, files: ModelFiles) -> dict[str, Any]:
    return {
        "kind": "component",
        "model": files.model,
        "component": part.name,
        "library": part.library,
        "class": part.class_name,
        "config": str(folder / "config.json"),
        "dtype": part.dtype,
        "variants": list(files.variants) if files.source == "catalogue" else None,
    }


def _marker_names(part: Component) -> list[str]:
    bases = _TRANSFORMERS if part.is_transformers else _DIFFUSERS
    names = list(bases)
    for base in bases:
        stem, suffix = base.rsplit(".", 1)
        names += [f"{stem}.{variant}.{suffix}" for variant in VARIANTS]
    return names


def _has_weights(folder: Path) -> bool:
    return any(f.suffix in WEIGHT_SUFFIXES and not f.name.startswith(".") for f in folder.iterdir())


def _lacking(files: ModelFiles) -> bool:
    """Whether a model's folder lacks the weights of some component."""
    assert files.folder is not None
    folders = [Path(files.folder) / p.name for p in files.components if p.has_weights]
    return any(not f.is_dir() or not _has_weights(f) for f in folders)


def _mirror(source: Path, target: Path) -> None:
    """Links to all files of ``source``, in the same folders."""
    for root, folders, names in os.walk(source):
        folders[:] = [f for f in folders if not f.startswith(".")]
        inside = target / Path(root).relative_to(source)
        inside.mkdir(parents=True, exist_ok=True)
        for name in names:
            link = inside / name
            if not link.exists():
                link.symlink_to(os.path.realpath(os.path.join(root, name)))


def _index(files: ModelFiles) -> dict[str, Any]:
    index: dict[str, Any] = {"_class_name": files.pipeline_class, "_diffusers_version": "0.35.0", **files.settings}
    index |= {name: [None, None] for name in files.absent}
    index |= {part.name: [part.library, part.class_name] for part in files.components}
    return index


def _write_config(part: Component, folder: Path) -> None:
    config = dict(part.config or {})
    if part.config_file == "tokenizer_config.json":
        config |= {"tokenizer_class": part.class_name}
        config |= {"model_max_length": part.max_length} if part.max_length else {}
    elif part.config_file == "config.json" and part.config is None:
        return
    elif part.config_file == "config.json" and part.is_transformers:
        config = {"architectures": [part.class_name], "torch_dtype": part.dtype, **config}
    elif not part.is_text_side:
        config["_class_name"] = part.class_name
    _write_json(folder / part.config_file, config)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    _write(file, json.dumps(value, indent=1))


def _write(file: Path, text: str) -> None:
    """Atomically, unless it exists."""
    if not file.exists():
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
