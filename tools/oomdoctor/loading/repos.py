"""From a model id or path to what is known about it: local folder, HF cache, ``--configs``, ``--like``, catalogue.

Never the network and never a guess by family: an id that nothing describes is :class:`UnknownRepo`. No torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oomdoctor.loading import entries
from oomdoctor.loading.entries import ModelFiles

ORGANISATIONS = {
    "THUDM": "zai-org",
    "ai-forever": "kandinskylab",
    "runwayml": "stable-diffusion-v1-5",
    "sd2-community": "stabilityai",
}
"""Organisations that were renamed, or that a model moved away from, and where it is now."""


_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")


class UnknownRepo(LookupError):
    """Nothing at hand describes the model. ``str()`` is one paragraph that ends with the ways out."""

    def __init__(self, asked: str, close: Sequence[str]) -> None:
        self.asked = asked
        self.close = tuple(close)
        known = f" Did you mean {' or '.join(close)}?" if close else ""
        super().__init__(
            f"No config is at hand for the model '{asked}': it is not a local folder, not in the Hugging Face cache of "
            f"this machine and not in the catalogue.{known} Give --configs DIR with its JSON files (model_index.json "
            "and each component's config.json; no weights are needed), --hub to ask the Hub for them, or --like REPO if it "
            "is a fine-tune of a model that `oom-doctor models` lists."
        )


class Repos:
    """Everything that can describe a model on this machine."""

    def __init__(
        self,
        catalogue: Path,
        configs: Sequence[Path] = (),
        like: Mapping[str, str] | None = None,
        hf_cache: Path | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._configs = tuple(configs)
        self._like = dict(like or {})
        self._hf_cache = hf_cache
        self._loaded: dict[str, dict[str, Any]] | None = None

    # ------------------------------------------------------------------ the catalogue
    def catalogue(self) -> dict[str, dict[str, Any]]:
        """Catalogue id -> entry, as stored."""
        if self._loaded is None:
            files = sorted(self._catalogue.glob("*.json"))
            entries_ = (json.loads(f.read_text(encoding="utf-8")) for f in files)
            self._loaded = {e["id"]: e for e in entries_}
        return self._loaded

    def canonical(self, asked: str) -> str | None:
        """The catalogue id that ``asked`` names: itself, an alias, an older organisation, a version; or None."""
        known = self.catalogue()
        if asked in known:
            return asked
        organisation, _, name = asked.partition("/")
        moved = f"{ORGANISATIONS.get(organisation, organisation)}/{name}"
        wanted = {asked.lower(), moved.lower()}
        for model, entry in known.items():
            names = (model, *entry.get("aliases", ()), *entry.get("versions", ()))
            if wanted & {name.lower() for name in names}:
                return model
        return None

    # ------------------------------------------------------------------ finding
    def find(self, asked: str | os.PathLike[str]) -> ModelFiles:
        """What is known about a model. Raises UnknownRepo, or entries.BadFile for broken JSON."""
        asked = str(asked)
        folder = _model_folder(asked)
        if folder is not None:
            return entries.from_folder(folder, asked, "folder")
        if asked in self._like:
            found = self._find_known(self._like[asked]) or self._unknown(self._like[asked])
            note = f"{asked} is taken to be built like {self._like[asked]}, as --like says."
            return _renamed(found, asked, note)
        known = self._find_known(asked)
        if known is not None:
            return known
        by_name = self._by_last_name(asked)
        if by_name is not None:
            note = f"the folder {asked} is not on this machine; it is taken to hold {by_name}, by its name."
            return _renamed(entries.from_catalogue(self.catalogue()[by_name], asked), asked, note)
        return self._unknown(asked)

    def _find_known(self, asked: str) -> ModelFiles | None:
        folder = _model_folder(asked)
        if folder is not None:
            return entries.from_folder(folder, asked, "folder")
        cached = self.cached_snapshot(asked)
        if cached is not None and entries.describes_model(cached):
            return entries.from_folder(cached, asked, "cache")
        for place in self._configs:
            for name in (asked, asked.replace("/", "--")):
                inside = None if os.path.isabs(name) or not name else _model_folder(os.path.join(place, name))
                if inside is not None:
                    return entries.from_folder(inside, asked, "configs")
        known = self.canonical(asked)
        if known is not None:
            entry = self.catalogue()[known]
            versions = {version.lower() for version in entry.get("versions", ())}
            notes = (f"{asked} has the components and shapes of {known}.",) if asked.lower() in versions else ()
            return entries.from_catalogue(entry, asked, notes)
        # A folder of configs that is itself the model describes whatever is asked for and nothing else describes.
        for place in self._configs:
            if entries.describes_model(place):
                note = f"{asked} is taken from the configs in {place}."
                return entries.from_folder(place.resolve(), asked, "configs", (note,))
        return None

    def cached_snapshot(self, asked: str) -> Path | None:
        """The newest snapshot folder of a repository in the machine's HF cache, or None."""
        if self._hf_cache is None or not _REPOSITORY.fullmatch(asked):
            return None
        repository = self._hf_cache / ("models--" + asked.replace("/", "--"))
        reference = repository / "refs" / "main"
        if reference.is_file():
            snapshot = repository / "snapshots" / reference.read_text(encoding="utf-8").strip()
            if snapshot.is_dir():
                return snapshot
        snapshots = [s for s in repository.glob("snapshots/*") if s.is_dir()]
        return max(snapshots, key=lambda s: s.stat().st_mtime, default=None)

    def _by_last_name(self, asked: str) -> str | None:
        if not looks_like_path(asked):
            return None
        last = asked.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower()
        matches = [m for m in self.catalogue() if last in (m.split("/")[1].lower(), m.lower().replace("/", "--"))]
        return matches[0] if len(matches) == 1 else None

    def _unknown(self, asked: str) -> ModelFiles:
        raise UnknownRepo(asked, self.close(asked))

    def close(self, asked: str) -> list[str]:
        """Catalogue ids that are spelled like ``asked``, best first, at most three."""
        wanted = asked.lower().rsplit("/", 1)[-1]
        scored = []
        for model in self.catalogue():
            name = model.lower().split("/")[1]
            score = difflib.SequenceMatcher(None, wanted, name).ratio() + (0.3 if name in wanted else 0.0)
            scored.append((score, model))
        return [model for score, model in sorted(scored, reverse=True)[:3] if score > 0.6]


def _model_folder(place: str) -> Path | None:
    """The absolute folder if ``place`` is one that describes a model; any text may be asked for."""
    full = os.path.expanduser(place)
    folder = Path(full).resolve() if os.path.isdir(full) else None
    return folder if folder is not None and entries.describes_model(folder) else None


def looks_like_path(asked: str) -> bool:
    """Whether a model argument names a place on disk rather than a repository of the Hub."""
    return asked.count("/") > 1 or "\\" in asked or asked.startswith((".", "/", "~")) or "/" not in asked


def _renamed(found: ModelFiles, asked: str, note: str) -> ModelFiles:
    return dataclasses.replace(found, model=asked, assumptions=(*found.assumptions, note))
