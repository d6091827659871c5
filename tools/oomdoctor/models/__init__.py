"""From a model id to its configs and components, without torch and without the network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oomdoctor.errors import InputError, UnknownModel
from oomdoctor.loading.entries import BadFile, Component, ModelFiles
from oomdoctor.loading.repos import Repos, UnknownRepo

__all__ = [
    "CATALOGUE",
    "Component",
    "ModelFiles",
    "catalogue",
    "hf_cache",
    "hub_folder",
    "model_ids",
    "repos",
    "resolve",
]

CATALOGUE = Path(__file__).parent / "catalogue"
"""Folder of the catalogue's data files, one per model."""


def hub_folder() -> Path:
    """Where the Hugging Face cache of this machine is or would be (``HF_HUB_CACHE``, ``HF_HOME`` or the default)."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()


def hf_cache() -> Path | None:
    """The Hugging Face cache of this machine, None when there is none."""
    place = hub_folder()
    return place if place.is_dir() else None


def repos(
    configs_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    like: str | Mapping[str, str] | None = None,
    model: str | None = None,
) -> Repos:
    """Everything that can describe a model: the folders given, the HF cache and the catalogue.

    ``like`` is a mapping from a model to the known one it is built like, or, with ``model``, just the latter.
    """
    if configs_dir is None:
        folders: list[Path] = []
    elif isinstance(configs_dir, (str, os.PathLike)):
        folders = [Path(configs_dir)]
    else:
        folders = [Path(folder) for folder in configs_dir]
    for folder in folders:
        if not folder.is_dir():
            raise UnknownModel(f"The configs folder {folder} does not exist. Give --configs a folder that does.")
    if isinstance(like, str):
        like = {model: like} if model is not None else {}
    return Repos(CATALOGUE, folders, like, hf_cache())


def resolve(
    model_id_or_path: str,
    *,
    configs_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    like: str | Mapping[str, str] | None = None,
) -> ModelFiles:
    """What is known about a model: pipeline class, components, configs, dtypes, counts, and where that comes from.

    Looks at: a local folder, ``like``, the HF cache, ``configs_dir``, the catalogue; never the network.
    Raises UnknownModel (with close matches and the ways out) and InputError for broken JSON.
    """
    try:
        return repos(configs_dir, like, model_id_or_path).find(model_id_or_path)
    except UnknownRepo as error:
        raise UnknownModel(str(error)) from None
    except BadFile as error:
        raise InputError(f"{error}. Correct or remove that file, or give --configs DIR with good ones.") from None


def catalogue() -> dict[str, dict[str, Any]]:
    """The catalogue: id -> entry, as stored (see bench/catalogue.py for the format)."""
    return Repos(CATALOGUE).catalogue()


def model_ids() -> list[str]:
    """The ids of the catalogue, sorted."""
    return sorted(catalogue())
