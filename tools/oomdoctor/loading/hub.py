"""``huggingface_hub`` without the network: every repository is a snapshot folder that the session knows or writes."""

from __future__ import annotations

import fnmatch
import os
import types
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from oomdoctor.loading import adapters, hooks, session, snapshot
from oomdoctor.loading.repos import UnknownRepo


def folder_of(repo_id: str) -> Path:
    """The folder that stands for a repository. Raises MissingModel, which ends the run with the ways out."""
    try:
        return session.current().snapshot(str(repo_id))
    except UnknownRepo as error:
        raise session.MissingModel(str(error)) from None


def file_of(repo_id: str, inside: str) -> Path | None:
    """A file of a repository: really there, or a marker for weights that an adapter load expects; else None."""
    now = session.current()
    cached = now.repos.cached_snapshot(str(repo_id))
    if cached is not None and (cached / inside).is_file():
        return cached / inside
    expected = adapters.expected_file(str(repo_id), inside)
    if expected is not None and not now.known(str(repo_id)):
        return expected
    file = folder_of(repo_id) / inside
    return file if file.is_file() else expected


def hf_hub_download(repo_id: str, filename: str, *, subfolder: str | None = None, **options: Any) -> Any:
    """Stands in for ``huggingface_hub.hf_hub_download``; ``local_dir`` is honoured by a link."""
    if options.get("repo_type") not in (None, "model"):
        return _from_other_repo(repo_id, filename, options)
    file = file_of(repo_id, f"{subfolder}/{filename}" if subfolder else filename)
    if file is None:
        raise _not_found()(f"{repo_id} has no file {filename} that the virtual run knows of.")
    return str(file)


def _from_other_repo(repo_id: str, filename: str, options: dict[str, Any]) -> str:
    raise _not_found()(
        f"{filename} of the {options['repo_type']} {repo_id} is not on this machine, and a virtual run downloads nothing."
    )


def snapshot_download(repo_id: str, **options: Any) -> str:
    """Stands in for ``huggingface_hub.snapshot_download``."""
    return str(folder_of(repo_id))


def try_to_load_from_cache(repo_id: str, filename: str, **options: Any) -> str | None:
    """Stands in for ``huggingface_hub.try_to_load_from_cache``; an unknown repository is not cached."""
    if options.get("repo_type") not in (None, "model") or not session.current().known(str(repo_id)):
        return None
    file = file_of(repo_id, filename)
    return None if file is None else str(file)


def list_repo_files(repo_id: str, **options: Any) -> list[str]:
    """Stands in for ``huggingface_hub.list_repo_files``: paths relative to the repository."""
    now = session.current()
    root = None if now.known(str(repo_id)) else now.repos.cached_snapshot(str(repo_id))
    if root is None and not now.known(str(repo_id)):
        expected = adapters.expected_names(str(repo_id))
        if expected:
            return expected
    root = root or folder_of(repo_id)
    return sorted(str(f.relative_to(root)) for f in root.rglob("*") if f.is_file() and not f.name.startswith("."))


def _model_info(repo_id: str, *args: Any, **options: Any) -> Any:
    siblings = [types.SimpleNamespace(rfilename=f, size=None, blob_id=None, lfs=None) for f in list_repo_files(repo_id)]
    return types.SimpleNamespace(
        id=repo_id, modelId=repo_id, sha=snapshot.COMMIT, siblings=siblings, tags=[], cardData=None, card_data=None,
        pipeline_tag=None, library_name="diffusers", private=False, gated=False, config=None,
    )  # fmt: skip


def _cached_tree(repo_id: str, *args: Any, **options: Any) -> list[Any]:
    return [types.SimpleNamespace(path=f, size=0) for f in list_repo_files(repo_id)]


def _repo_tree(repo_id: str, path_in_repo: str | None = None, **options: Any) -> list[Any]:
    wanted = f"{path_in_repo.rstrip('/')}/*" if path_in_repo else "*"
    names = [f for f in list_repo_files(repo_id) if fnmatch.fnmatch(f, wanted)]
    return [types.SimpleNamespace(path=f, size=0, rfilename=f) for f in names]


def _file_exists(repo_id: str, filename: str, **options: Any) -> bool:
    now = session.current()
    return options.get("repo_type") in (None, "model") and now.known(repo_id) and file_of(repo_id, filename) is not None


def _repo_exists(repo_id: str, **options: Any) -> bool:
    return session.current().known(repo_id)


def _resolve_revision(repo_id: str, revision: str | None = None, **options: Any) -> Any:
    """Unresolved: what a revision holds is the same folder, and the loaders take the revision as it was given."""
    return revision


def _not_found() -> type[Exception]:
    from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError

    # Before huggingface_hub 1.0 the general class wants the HTTP response that it reports.
    return EntryNotFoundError if Exception in EntryNotFoundError.__bases__ else LocalEntryNotFoundError


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "hf_hub_download": hf_hub_download,
    "snapshot_download": snapshot_download,
    "try_to_load_from_cache": try_to_load_from_cache,
    "list_repo_files": list_repo_files,
    "list_repo_tree": _repo_tree,
    "model_info": _model_info,
    "repo_info": _model_info,
    "file_exists": _file_exists,
    "repo_exists": _repo_exists,
    "resolve_revision": _resolve_revision,
    "get_cached_repo_tree": _cached_tree,
}
"""Public function of huggingface_hub -> what stands in for it, where the installed version has it."""
_METHODS = set(FUNCTIONS) - {"try_to_load_from_cache", "get_cached_repo_tree"}


def patch(module: ModuleType) -> None:
    """After ``import huggingface_hub``: its functions, and the methods of ``HfApi``."""
    import importlib

    os.environ["HF_HUB_OFFLINE"] = "0"
    api = importlib.import_module("huggingface_hub.hf_api")
    homes = ["huggingface_hub", "huggingface_hub.hf_api", "huggingface_hub.file_download"]
    homes.append("huggingface_hub._snapshot_download")
    for name, new in FUNCTIONS.items():
        for home in homes:
            place = importlib.import_module(home)
            if getattr(place, name, None) is not None:
                hooks.replace(place, name, new)
    for name in _METHODS:
        if hasattr(api.HfApi, name):
            setattr(api.HfApi, name, _as_method(FUNCTIONS[name]))


def _as_method(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **options: Any) -> Any:
        return function(*args, **options)

    return method
