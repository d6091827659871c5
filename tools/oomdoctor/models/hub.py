"""Ask the Hub what a repository holds, when that is allowed: its JSON files, and of its weight files the headers alone.

A safetensors file begins with a table of its tensors, so a ranged request of some kilobytes tells what gigabytes hold.
What was found is kept as a configs folder: the JSON files as they are, each weight file as a marker with its table
(:mod:`oomdoctor.loading.snapshot`). Nothing is fetched twice, and no weights ever.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from oomdoctor.errors import UnknownModel
from oomdoctor.loading import snapshot
from oomdoctor.models import resolve

ALLOWED = "OOM_DOCTOR_HUB"
"""Environment variable: 1 allows it for all commands, as ``--hub`` does for one."""
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WANTED = re.compile(
    r"(model_index|config|scheduler_config|tokenizer_config|preprocessor_config|generation_config|.*\.index)\.json"
)
_MOST_JSON, _MOST_HEADER, _FIRST = 16 << 20, 100 << 20, 1 << 16
_SECONDS = 20.0


def folder() -> Path:
    """Where descriptions of repositories are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or str(Path.home() / ".cache")
    return Path(base) / "oom-doctor" / "hub"


def describe(model: str, place: Path | None = None) -> Path:
    """The folder below ``place`` (default: :func:`folder`) that describes ``model``, fetched unless it is there.

    The Hub is ``HF_ENDPOINT`` or huggingface.co; ``HF_TOKEN``, if set, is sent to it. Raises :class:`UnknownModel` for a
    repository that is gated, private or not there, and when the Hub cannot be reached; each with the way out.
    """
    target = (place or folder()) / model.replace("/", "--")
    if target.is_dir():
        return target
    hub = _Hub(model)
    files = hub.files()
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _fill(partial, hub, files)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _fill(place: Path, hub: _Hub, files: Mapping[str, int | None]) -> None:
    jsons = [name for name in files if _WANTED.fullmatch(name.rpartition("/")[2]) and name.count("/") <= 1]
    if not any(name in ("model_index.json", "config.json") for name in jsons):
        raise UnknownModel(
            f"The repository {hub.model} has neither a model_index.json nor a config.json: it is no model that "
            "from_pretrained could load. If it holds a single file or a LoRA, name the model it belongs to with --like."
        )
    for name in jsons:
        _write(place / name, hub.read(name, 0, _MOST_JSON))
    described = {name.rpartition("/")[0] for name in jsons}
    for name in files:
        if name.endswith(".safetensors") and name.rpartition("/")[0] in described:
            tensors = {key: [t["dtype"], t["shape"]] for key, t in hub.header(name).items() if key != "__metadata__"}
            content = {"kind": "table", "tensors": tensors, "model": hub.model, "bytes": files[name]}
            _write(place / name, snapshot.marker_bytes(content))


def _write(file: Path, raw: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(raw)


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects; the token stays with the host that it is meant for."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None and urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc:
            made.remove_header("Authorization")
        return made


class _Hub:
    """Requests for one repository."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        self._opener = urllib.request.build_opener(_SameHost)

    def files(self) -> dict[str, int | None]:
        """Every file of the repository and its bytes."""
        raw = self._get(f"api/models/{self.model}?blobs=true", 0, _MOST_JSON)
        try:
            siblings = json.loads(raw)["siblings"]
            return {str(s["rfilename"]): s.get("size") for s in siblings if ".." not in s["rfilename"].split("/")}
        except (ValueError, KeyError, TypeError):
            raise self._unknown("answered something else than a list of files") from None

    def read(self, name: str, start: int, count: int) -> bytes:
        """``count`` bytes of a file from ``start`` on, fewer where it ends."""
        return self._get(f"{self.model}/resolve/main/{urllib.parse.quote(name)}", start, count)

    def header(self, name: str) -> dict[str, Any]:
        """The table of a safetensors file."""
        raw = self.read(name, 0, _FIRST)
        size = struct.unpack("<Q", raw[:8])[0] if len(raw) >= 8 else 0
        if not 2 <= size <= _MOST_HEADER:
            raise UnknownModel(f"{name} of {self.model} is not a safetensors file. Give --configs DIR or --like REPO.")
        if len(raw) < 8 + size:
            raw += self.read(name, len(raw), 8 + size - len(raw))
        try:
            header: dict[str, Any] = json.loads(raw[8 : 8 + size])
            return header
        except ValueError:
            raise UnknownModel(
                f"{name} of {self.model} has a broken header. Give --configs DIR or --like REPO."
            ) from None

    def _get(self, path: str, start: int, count: int) -> bytes:
        request = urllib.request.Request(f"{self._endpoint}/{path}", headers={"User-Agent": "oom-doctor"})
        if count != _MOST_JSON:
            request.add_header("Range", f"bytes={start}-{start + count - 1}")
        if os.environ.get("HF_TOKEN"):
            request.add_header("Authorization", f"Bearer {os.environ['HF_TOKEN']}")
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                if answer.status != 206 and start:
                    answer.read(start)  # a server without ranges starts at the beginning
                raw: bytes = answer.read(count)
                return raw
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except (OSError, ValueError) as error:  # no network, a timeout, an endpoint that is no address
            raise self._unknown(f"cannot be reached ({getattr(error, 'reason', error)})") from None

    def _refused(self, error: urllib.error.HTTPError) -> UnknownModel:
        said = error.headers.get("X-Error-Code", "") if error.headers else ""
        if said == "GatedRepo" or error.code == 403:
            return UnknownModel(
                f"The model {self.model} is gated: its files are given only to who accepted its terms. Accept them at "
                f"{self._endpoint}/{self.model}, set HF_TOKEN to a token of yours and try again; or give --configs DIR "
                "with its JSON files, or --like REPO."
            )
        if said == "RepoNotFound" or error.code in (401, 404):
            return UnknownModel(
                f"The Hub has no model {self.model}, or it is private. Check the spelling; for a private one set HF_TOKEN, "
                "or give --configs DIR with its JSON files, or --like REPO."
            )
        return self._unknown(f"answered {error.code} {error.reason}")

    def _unknown(self, why: str) -> UnknownModel:
        return UnknownModel(
            f"Nothing at hand describes the model {self.model}, and the Hub at {self._endpoint} {why}. Try again later, or "
            "give --configs DIR with its JSON files, or --like REPO."
        )


def describe_missing(models: Iterable[str], configs: list[str], like: Mapping[str, str]) -> list[str]:
    """Fetch what describes those of ``models`` that nothing at hand describes; returns which they are.

    ``configs`` are the folders that are looked at; the one of descriptions is added when there is any. Raises
    :class:`UnknownModel`.
    """
    kept = str(folder())
    asked = []
    for model in models:
        if REPOSITORY.fullmatch(model) and model not in like and not os.path.exists(model):
            try:
                resolve(model, configs_dir=[*configs, *([kept] if os.path.isdir(kept) else [])])
            except UnknownModel:
                asked.append(model)
    for model in asked:
        describe(model)
    if os.path.isdir(kept) and kept not in configs:
        configs.append(kept)
    return asked
