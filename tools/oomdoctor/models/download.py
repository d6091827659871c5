"""What a first load of a script's models fetches from the Hub: the weights that are not on this machine yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from oomdoctor.errors import OomDoctorError
from oomdoctor.loading import snapshot
from oomdoctor.loading.entries import WEIGHT_SUFFIXES, Component, ModelFiles
from oomdoctor.models import resolve
from oomdoctor.values import Loaded, Measurement, PipelineUse

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
    sizes = first_load(use, configs=configs, like=like)
    return None if sizes is None or None in sizes.values() else sum(n for n in sizes.values() if n is not None)


def with_first_load(
    measurement: Measurement,
    uses: Sequence[PipelineUse],
    *,
    configs: Sequence[str] = (),
    like: Mapping[str, str] | None = None,
) -> Measurement:
    """The measurement with what a first load downloads, in all and of each component, as far as that is known.

    ``uses``: the pipelines that were measured together, the main one last: of components of one name it is told of.
    """
    names = {c.name for c in measurement.components}
    sizes: dict[str, int | None] = {}
    fetched: dict[tuple[str, str], int | None] = {}
    told: dict[str, str] = {}
    for use in uses:
        found = first_load(use, configs=configs, like=like, there=names)
        own = {c.name: str(c.model.value) for c in use.components}
        sizes |= found or {}
        fetched |= {(own.get(n, str(use.model.value)), n): size for n, size in (found or {"": None}).items()}
        told |= _sources(use, configs, like)
    parts = tuple(
        part.model_copy(update={"file_bytes": sizes.get(part.name), "source": told.get(part.name, part.source)})
        for part in measurement.components
    )
    changes: dict[str, object] = {"components": parts}
    if fetched and None not in fetched.values():
        whole = sum(n for n in fetched.values() if n is not None)
        said = f"download: weights in the type they are published in, at {BYTES_PER_SECOND / 1e6:.0f} MB/s"
        changes |= {"download_bytes": whole, "download_seconds": whole / BYTES_PER_SECOND}
        changes["sources"] = (*measurement.sources, said)
    return measurement.model_copy(update=changes)


def _sources(use: PipelineUse, configs: Sequence[str], like: Mapping[str, str] | None) -> dict[str, str]:
    """Component -> where its shapes and types come from, in words."""
    named = {".": use.model.value, **{c.name: c.model.value for c in use.components}}
    places = {c.name: str(c.subfolder.value or ".") for c in use.components}
    found: dict[str, str] = {}
    for name, model in named.items():
        try:
            files = _files(str(model), configs, like)
        except OomDoctorError:
            continue
        parts = files.components if name == "." else [p for p in (files.component(places[name]),) if p is not None]
        for part in parts:
            if part.has_weights and (name != "." or part.name not in named):
                found[name if name != "." else part.name] = _source(files, part)
    return found


def _source(files: ModelFiles, part: Component) -> str:
    if files.source == "catalogue":
        return f"config of {files.known_as} in the catalogue"
    folder = Path(files.folder or "") / part.name
    weights = list(folder.glob("*.safetensors")) if folder.is_dir() else []
    if weights and any(snapshot.read_marker(f) is not None for f in weights):
        return "safetensors headers, asked of the Hub"
    where = "the Hugging Face cache" if files.source == "cache" else files.folder
    return f"safetensors headers in {where}" if weights else f"config.json in {where}"


def first_load(
    use: PipelineUse,
    *,
    configs: Sequence[str] = (),
    like: Mapping[str, str] | None = None,
    there: Collection[str] = (),
) -> dict[str, int | None] | None:
    """Component -> bytes that a first load fetches for it: 0 when it is on this machine, None when it is not known.

    ``there``: the components that were seen, which tell whether connected models are loaded (``prior_...``).
    None as a whole when what is loaded is not known: a single file, an adapter, a model that nothing describes.
    """
    if use.loader == "from_pipe" and not use.adapters:
        return {}
    if use.adapters or use.loader not in (None, "from_pretrained") or use.model.value is None:
        return None
    try:
        files = _files(str(use.model.value), configs, like)
        given = {loaded.name for loaded in use.components}
        left_out = {name for name, known in use.load_arguments.items() if known.text == "None"}
        wanted = [p for p in files.components if p.name not in given | left_out]
        sizes = {part.name: _fetched(files, part, use.variant.value) for part in wanted}
        for prefix, model in files.connected.items():
            if any(name.startswith(f"{prefix}_") for name in there):
                other = _files(model, configs, like)
                sizes |= {f"{prefix}_{p.name}": _fetched(other, p, use.variant.value) for p in other.components}
        lone = [loaded for loaded in use.components if loaded.loader != "from_config" and not _shared(loaded)]
        return {**sizes, **{loaded.name: _of_given(loaded, configs, like) for loaded in lone}}
    except OomDoctorError:
        return None


def _files(model: str, configs: Sequence[str], like: Mapping[str, str] | None) -> ModelFiles:
    return resolve(model, configs_dir=list(configs) or None, like=(like or {}).get(model))


def _shared(loaded: Loaded) -> bool:
    """Another pipeline's component (``vae=base.vae``): fetched with that one."""
    return loaded.loader is None and loaded.variable is not None and "." in loaded.variable


def _of_given(loaded: Loaded, configs: Sequence[str], like: Mapping[str, str] | None) -> int | None:
    """Bytes of a component that is loaded by itself."""
    if loaded.loader != "from_pretrained" or loaded.model.value is None:
        return None
    files = _files(str(loaded.model.value), configs, like)
    part = files.component(str(loaded.subfolder.value or "."))
    variant = loaded.arguments.get("variant")
    return None if part is None else _fetched(files, part, variant.value if variant else None)


def _fetched(files: ModelFiles, part: Component, variant: object) -> int | None:
    """Bytes of a component's weights as published; 0 where there are none, or where they are here already."""
    if not part.has_weights:
        return 0
    listed = _listed(files, part, variant)
    if listed is not None:
        return listed
    itemsize = _VARIANTS.get(str(variant)) or _ITEMSIZE.get(part.dtype or "")
    if part.params is None or itemsize is None:
        return None
    return (part.params + part.buffers) * itemsize


def _listed(files: ModelFiles, part: Component, variant: object) -> int | None:
    """Bytes of the weight files as the Hub lists them, 0 for files that are here; None where there is no file."""
    folder = Path(files.folder) / part.name if files.folder else None
    if folder is None or not folder.is_dir():
        return None
    found = [f for f in folder.iterdir() if f.suffix in WEIGHT_SUFFIXES]
    markers = {f: content for f in found if (content := snapshot.read_marker(f)) is not None}
    if not markers:
        return 0 if found else None
    of_variant = [f for f in markers if variant is not None and f".{variant}" in f.name]
    plain = [f for f in markers if not any(f".{name}" in f.name for name in snapshot.VARIANTS)]
    chosen = of_variant or plain
    sizes = [markers[f].get("bytes") for f in chosen]
    known = [size for size in sizes if isinstance(size, int)]
    return sum(known) if known and len(known) == len(sizes) else None
