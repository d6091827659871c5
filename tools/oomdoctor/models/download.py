"""What a first load of a script's models fetches from the Hub: the weights that are not on this machine yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from oomdoctor.errors import OomDoctorError
from oomdoctor.loading.entries import WEIGHT_SUFFIXES, Component, ModelFiles
from oomdoctor.models import resolve
from oomdoctor.values import Loaded, PipelineUse

BYTES_PER_SECOND = 50e6
"""An ordinary fast line (400 Mbit/s); the seconds that are told with the bytes assume it."""
_ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}
_VARIANTS = {"fp16": 2, "bf16": 2}


def first_load_bytes(
    use: PipelineUse, *, configs: Sequence[str] = (), like: Mapping[str, str] | None = None
) -> int | None:
    """Bytes of the weights of the pipeline and of the components that it is given.

    None when a part of it cannot be known: a model or adapter of unknown size, a single file, a stored type that
    nothing states.
    """
    if use.adapters or use.loader not in (None, "from_pretrained") or use.model.value is None:
        return None
    try:
        files = _files(str(use.model.value), configs, like)
        given = {loaded.name for loaded in use.components}
        left_out = {name for name, known in use.load_arguments.items() if known.text == "None"}
        wanted = [p for p in files.components if p.name not in given | left_out]
        sizes = [_stored(files, part, use.variant.value) for part in wanted]
        sizes += [_of_given(loaded, configs, like) for loaded in use.components if loaded.loader != "from_config"]
    except OomDoctorError:
        return None
    return None if None in sizes else sum(n for n in sizes if n is not None)


def _files(model: str, configs: Sequence[str], like: Mapping[str, str] | None) -> ModelFiles:
    return resolve(model, configs_dir=list(configs) or None, like=(like or {}).get(model))


def _of_given(loaded: Loaded, configs: Sequence[str], like: Mapping[str, str] | None) -> int | None:
    """Bytes of a component that is loaded by itself."""
    if loaded.loader != "from_pretrained" or loaded.model.value is None:
        return None
    files = _files(str(loaded.model.value), configs, like)
    part = files.component(str(loaded.subfolder.value or "."))
    variant = loaded.arguments.get("variant")
    return None if part is None else _stored(files, part, variant.value if variant else None)


def _stored(files: ModelFiles, part: Component, variant: object) -> int | None:
    """Bytes of a component's weights as published; 0 where there are none, or where they are here already."""
    if not part.has_weights or _is_here(files, part):
        return 0
    itemsize = _VARIANTS.get(str(variant)) or _ITEMSIZE.get(part.dtype or "")
    if part.params is None or itemsize is None:
        return None
    return (part.params + part.buffers) * itemsize


def _is_here(files: ModelFiles, part: Component) -> bool:
    folder = Path(files.folder) / part.name if files.folder else None
    return folder is not None and folder.is_dir() and any(f.suffix in WEIGHT_SUFFIXES for f in folder.iterdir())
