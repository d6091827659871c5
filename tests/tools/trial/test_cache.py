"""Measurements kept on disk: found again for the same call, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from oomdoctor.hardware import card
from oomdoctor.trial import cache
from oomdoctor.values import Component, Measurement

CALL = 'pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")\npipe(height=1024)\n'
VERSIONS = {"torch": "2.13.0", "diffusers": "0.42.1", "transformers": "5.23.0", "accelerate": None}
MEASURED = Measurement(
    pipeline_class="FluxPipeline",
    model="black-forest-labs/FLUX.1-dev",
    call={"height": 1024},
    components=(Component(name="vae", class_name="AutoencoderKL", params=3, loaded_bytes=6, source="config"),),
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.SWITCH, str(tmp_path / "kept"))
    return tmp_path


def key(source: str = CALL, **changes: object) -> str:
    options: dict[str, object] = {"card": card("rtx-4090"), "versions": VERSIONS, **changes}
    made = cache.key(source, **options)  # type: ignore[arg-type]
    assert made is not None
    return made


def test_what_was_written_is_read() -> None:
    assert cache.read(key()) is None
    cache.write(key(), MEASURED)
    assert cache.read(key()) == MEASURED


def test_every_input_changes_the_key(tmp_path: Path) -> None:
    keys = [
        key(),
        key(CALL.replace("1024", "512")),
        key(card=card("rtx-3060-12gb")),
        key(versions={**VERSIONS, "diffusers": "0.41.0"}),
        key(CALL.replace("FLUX.1-dev", "FLUX.1-schnell")),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


def test_local_files_count_by_their_content(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKL", "latent_channels": 4}')
    call = f"pipe = AutoencoderKL.from_pretrained({str(folder)!r})"
    before = key(call)
    assert key(call) == before
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKL", "latent_channels": 16}')
    assert key(call) != before


def test_like_counts() -> None:
    call = CALL.replace("black-forest-labs/FLUX.1-dev", "me/tuned")
    like = {"me/tuned": "black-forest-labs/FLUX.1-dev"}
    assert key(call) != key(call, like=like) != key(call, like={"me/tuned": "black-forest-labs/FLUX.1-schnell"})


def test_unknown_versions_are_never_reused() -> None:
    assert cache.key(CALL, card=card("rtx-4090"), versions={"torch": "2.13.0"}) is None
    cache.write(None, MEASURED)
    assert cache.read(None) is None


def test_a_broken_file_is_measured_again() -> None:
    cache.write(key(), MEASURED)
    place = cache.folder()
    assert place is not None
    (place / f"{key()}.json.gz").write_bytes(b"not gzip")
    assert cache.read(key()) is None


def test_the_switch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cache.SWITCH, "")
    cache.write(key(), MEASURED)
    assert cache.folder() is None
    assert cache.read(key()) is None


def test_only_the_last_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEPT", 2)
    names = [key(CALL.replace("1024", str(size))) for size in (256, 512, 768)]
    for name in names:
        cache.write(name, MEASURED)
    place = cache.folder()
    assert place is not None
    assert len(list(place.glob("*.json.gz"))) == 2
    assert cache.read(names[-1]) == MEASURED
