"""``from_single_file`` of a file that is not on this machine: the known model it is most likely a version of."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from oomdoctor.loading import hooks, session, snapshot
from oomdoctor.loading.entries import Component, ModelFiles
from oomdoctor.loading.quantised import gguf

PREFERRED = (
    "black-forest-labs/FLUX.1-dev", "stabilityai/stable-diffusion-xl-base-1.0",
    "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-3.5-large",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers", "Lightricks/LTX-Video", "hunyuanvideo-community/HunyuanVideo",
)  # fmt: skip
"""What a file is taken for when its name says nothing, best known first."""
_DTYPES = {"fp8": "float8_e4m3fn", "fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def is_at_hand(link: Any) -> bool:
    """Whether a single-file argument is a state dict, a file here, or a file in the HF cache."""
    if not isinstance(link, (str, os.PathLike)):
        return True
    place = os.fspath(link)
    if os.path.isfile(place):
        return True
    repo_id, inside = split_link(place)
    cached = session.current().repos.cached_snapshot(repo_id) if repo_id else None
    return cached is not None and (cached / inside).is_file()


def split_link(link: str) -> tuple[str, str]:
    """(repository, file in it) of a Hub address or ``org/name/file``; ("", file) for anything else."""
    path = re.sub(r"^(https?://)?(huggingface\.co|hf\.co)/", "", link)
    path = re.sub(r"/(blob|resolve)/[^/]+/", "/", path)
    match = re.fullmatch(r"([^/\\]+/[^/\\]+)/(.+)", path)
    if match is None or link.startswith((".", "/", "~")):
        return "", link.replace("\\", "/").rsplit("/", 1)[-1]
    return match.group(1), match.group(2)


def base_for(class_name: str, link: str) -> tuple[ModelFiles, Component | None]:
    """The model whose parts a missing file is taken to have: by class, then by the words they share in their names.

    For a pipeline class the component is None. Raises MissingModel when no known model has that class.
    """
    now = session.current()
    best: tuple[tuple[int, float], str, Component | None] | None = None
    words = set(re.findall(r"[a-z]+|\d+(?:\.\d+)?", link.lower().rsplit("/", 1)[-1]))
    family = class_name.removesuffix("Pipeline")
    for model, entry in now.repos.catalogue().items():
        files = now.files(model)
        pipeline = entry["pipeline"] or ""
        part = next((c for c in files.components if c.class_name == class_name), None)
        shared = len(os.path.commonprefix([family, pipeline.removesuffix("Pipeline")]))
        if part is None and (not class_name.endswith("Pipeline") or shared < len(pipeline.removesuffix("Pipeline"))):
            continue
        known = set(re.findall(r"[a-z]+|\d+(?:\.\d+)?", model.lower().split("/")[1]))
        favour = (len(PREFERRED) - PREFERRED.index(model)) / 100 if model in PREFERRED else 0.0
        score = (shared if part is None else 0, len(words & known) + favour)
        if best is None or score > best[0]:
            best = (score, model, part)
    if best is None:
        raise session.MissingModel(
            f"{link} is not on this machine and no model of the catalogue has a {class_name}. Put the file there (only "
            "its header is read), or load from a folder of configs with --configs DIR."
        )
    here = "is read by its header only" if os.path.isfile(link) else "is not on this machine"
    now.note(f"the file {link} {here}: it is taken to hold a version of {best[1]}.")
    return now.files(best[1]), best[2]


def stated_base(class_name: str, options: dict[str, Any]) -> tuple[ModelFiles, Component] | None:
    """The model and part that ``config=`` and ``subfolder=`` name, when something describes them."""
    model = options.get("config")
    if not isinstance(model, (str, os.PathLike)) or not session.current().known(str(model)):
        return None
    files = session.current().files(str(model))
    fitting = [c for c in files.components if c.class_name == class_name]
    named = [c for c in fitting if c.name == options.get("subfolder")]
    return (files, (named or fitting)[0]) if fitting else None


def stored_dtype(link: str, part: Component) -> str | None:
    """The dtype that a file's name states, else that of the base model."""
    name = link.lower().rsplit("/", 1)[-1]
    return next((dtype for word, dtype in _DTYPES.items() if word in name), part.dtype)


def marker_for(link: str, files: ModelFiles, part: Component) -> Path:
    """A marker with the tensors of ``part``, named like the missing file."""
    now = session.current()
    name = os.path.basename(split_link(link)[1])
    folder = now.snapshot(files.model) / part.name
    file = now.scratch / "files" / files.known_as.replace("/", "--") / part.name / name
    content = {
        "kind": "component",
        "model": link,
        "component": part.name,
        "library": part.library,
        "class": part.class_name,
        "config": str(folder / "config.json"),
        "dtype": stored_dtype(link, part),
    }
    if name.endswith(".gguf"):
        content = gguf.marker_content(content, link)
    snapshot.write_marker(file, content)
    return file


def patch_models(module: ModuleType) -> None:
    """After ``import diffusers.loaders.single_file_model``."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def from_single_file(cls: Any, link: Any = None, *args: Any, **options: Any) -> Any:
            link = options.pop("pretrained_model_link_or_path_or_dict", link)
            if link is None or is_at_hand(link):
                return original(cls, link, *args, **options)
            stated = stated_base(cls.__name__, options)
            files, part = stated or base_for(cls.__name__, str(link))
            assert part is not None
            if "config" not in options and options.get("original_config") is None:
                options["config"] = str(session.current().snapshot(files.model))
                options["subfolder"] = part.name
            return original(cls, str(marker_for(str(link), files, part)), *args, **options)

        return from_single_file

    hooks.wrap_method(module.FromOriginalModelMixin, "from_single_file", make)


def patch_pipelines(module: ModuleType) -> None:
    """After ``import diffusers.loaders.single_file``: a missing file of a whole pipeline loads its base model."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def from_single_file(cls: Any, link: Any = None, *args: Any, **options: Any) -> Any:
            link = options.pop("pretrained_model_link_or_path", link)
            if is_at_hand(link):
                return original(cls, link, *args, **options)
            files, _ = base_for(cls.__name__, str(link))
            dropped = ("config", "original_config", "original_config_file", "use_safetensors", "local_files_only")
            kept = {k: v for k, v in options.items() if k not in dropped}
            return cls.from_pretrained(str(session.current().snapshot(files.model)), *args, **kept)

        return from_single_file

    hooks.wrap_method(module.FromSingleFileMixin, "from_single_file", make)
