"""Asking the Hub, played by a server of our own: headers only, by ranges; and what it refuses, in words."""

from __future__ import annotations

import json
import re
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.errors import UnknownModel
from oomdoctor.models import hub, resolve
from oomdoctor.models.download import first_load_bytes
from oomdoctor.script import read_script

MODEL = "me/new-model"


def weights(tensors: dict[str, tuple[str, list[int], int]], data: int) -> bytes:
    """A safetensors file: name -> type, shape, bytes; its data are ``data`` zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "padding": "x" * 70_000}}
    end = 0
    for name, (kind, shape, size) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(data)


FILES: dict[str, bytes] = {
    "model_index.json": json.dumps(
        {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "vae": [None, None]}
    ).encode(),
    "unet/config.json": json.dumps({"_class_name": "UNet2DConditionModel", "sample_size": 64}).encode(),
    "unet/diffusion_pytorch_model.safetensors": weights({"a": ("F32", [300, 1000], 1_200_000)}, 1_200_000),
    "unet/diffusion_pytorch_model.fp16.safetensors": weights({"a": ("F16", [300, 1000], 600_000)}, 600_000),
    "unet/diffusion_pytorch_model.bin": b"never asked for",
    "README.md": b"never asked for",
}


class Hub(BaseHTTPRequestHandler):
    """Lists and gives files as the Hub does; ``log`` keeps (path, bytes given, Authorization)."""

    log: list[tuple[str, int, str | None]]
    ranges = True

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        if path.startswith(("api/models/me/gated", "me/gated")):
            return self.give(403, b"", {"X-Error-Code": "GatedRepo"})
        if path == f"api/models/{MODEL}":
            siblings = [{"rfilename": name, "size": len(raw)} for name, raw in FILES.items()]
            return self.give(200, json.dumps({"siblings": siblings}).encode())
        name = path.removeprefix(f"{MODEL}/resolve/main/")
        if name == path and path.startswith("cdn/"):
            name = path.removeprefix("cdn/")
        elif name.endswith(".safetensors") and name in FILES:
            port = self.server.server_address[1]
            return self.give(302, b"", {"Location": f"http://localhost:{port}/cdn/{name}"})
        if name not in FILES:
            return self.give(401, b"", {"X-Error-Code": "RepoNotFound"})
        raw, wanted = FILES[name], self.headers.get("Range")
        if wanted and self.ranges:
            first, last = map(int, re.findall(r"\d+", wanted))
            return self.give(206, raw[first : last + 1])
        return self.give(200, raw)

    def give(self, status: int, raw: bytes, headers: dict[str, str] | None = None) -> None:
        self.log.append((self.path, len(raw), self.headers.get("Authorization")))
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(raw))}.items():
            self.send_header(key, value)
        self.end_headers()
        try:
            self.wfile.write(raw)
        except OSError:  # the reader has what it wants
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        return None


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("Played", (Hub,), {"log": []})
    played = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=played.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{played.server_address[1]}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield handler
    played.shutdown()
    thread.join()
    played.server_close()


def test_headers_are_fetched_by_ranges_and_once(server: type[Hub]) -> None:
    configs: list[str] = []
    assert hub.describe_missing([MODEL], configs, {}) == [MODEL]
    given = {path.partition("?")[0]: size for path, size, _ in server.log}
    assert sum(size for _, size, _ in server.log) < 400_000  # of 1.8 MB of weights
    assert not any(name.endswith((".bin", ".md")) for name in given)
    asked = len(server.log)
    assert hub.describe_missing([MODEL], configs, {}) == []
    assert len(server.log) == asked
    files = resolve(MODEL, configs_dir=configs)
    unet = files.component("unet")
    assert files.pipeline_class == "StableDiffusionPipeline" and files.absent == ("vae",)
    assert unet is not None and unet.dtype == "float32"


def test_what_a_first_load_downloads_is_what_the_hub_lists(server: type[Hub]) -> None:
    configs: list[str] = []
    hub.describe_missing([MODEL], configs, {})
    head = f'from diffusers import StableDiffusionPipeline\npipe = StableDiffusionPipeline.from_pretrained("{MODEL}"'
    for variant, name in (("", ""), (', variant="fp16"', ".fp16")):
        use = read_script(f'{head}{variant})\npipe("a cat")\n').main
        assert use is not None
        size = len(FILES[f"unet/diffusion_pytorch_model{name}.safetensors"])
        assert first_load_bytes(use, configs=configs) == size


def test_a_server_without_ranges(server: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ranges", False)
    place = hub.describe(MODEL)
    assert (place / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size < 1000


def test_the_token_stays_with_the_hub(server: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.describe(MODEL)
    sent = {path.startswith("/cdn/"): token for path, _, token in server.log}
    assert sent == {False: "Bearer secret", True: None}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("me/gated", ("is gated", "HF_TOKEN", "--configs DIR", "--like REPO")),
        ("me/nothing", ("has no model me/nothing", "private", "--configs DIR")),
    ],
)
def test_refusals_say_the_way_out(server: type[Hub], model: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UnknownModel) as caught:
        hub.describe(model)
    for word in words:
        assert word in str(caught.value)
    assert not (hub.folder() / model.replace("/", "--")).exists()


def test_no_network(server: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnknownModel, match="cannot be reached"):
        hub.describe(MODEL)


def test_broken_answers(server: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    name = "unet/diffusion_pytorch_model.safetensors"
    for raw in (b"", b"<html>", struct.pack("<Q", 10) + b"not json..", struct.pack("<Q", 1 << 40)):
        monkeypatch.setitem(FILES, name, raw)
        with pytest.raises(UnknownModel, match="safetensors|broken header"):
            hub.describe(MODEL)
        assert not (hub.folder() / "me--new-model").exists()
    monkeypatch.setitem(FILES, "model_index.json", b"")
    monkeypatch.delitem(FILES, "model_index.json")
    with pytest.raises(UnknownModel, match=r"neither a model_index\.json nor"):
        hub.describe(MODEL)


def test_known_models_and_paths_are_never_asked_for(server: type[Hub], tmp_path: Path) -> None:
    assert hub.describe_missing(["black-forest-labs/FLUX.1-dev", str(tmp_path), "me/x"], [], {"me/x": "a/b"}) == []
    assert server.log == []
