"""The catalogue: every entry is complete, consistent with what was published, and small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from oomdoctor.models import CATALOGUE, catalogue, model_ids, resolve

SHARED = Path("/work/shared/data")
ENTRIES = catalogue()
ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}


def test_first_models_are_there() -> None:
    wanted = {
        "black-forest-labs/FLUX.1-dev",
        "black-forest-labs/FLUX.1-schnell",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "stabilityai/stable-diffusion-xl-refiner-1.0",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "stabilityai/stable-diffusion-3.5-large",
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    }
    assert wanted <= set(model_ids())


@pytest.mark.parametrize("model", sorted(ENTRIES))
def test_entry_is_complete(model: str) -> None:
    entry = ENTRIES[model]
    assert (CATALOGUE / (model.replace("/", "--") + ".json")).is_file()
    files = resolve(model)
    assert files.source == "catalogue"
    weighty = [part for part in files.components if part.has_weights]
    assert weighty
    for part in weighty:
        assert part.dtype in ITEMSIZE, (model, part.name)
        assert part.params is not None and part.params > 0, (model, part.name)
    if entry["pipeline"]:
        assert any(part.config_file == "scheduler_config.json" for part in files.components)


@pytest.mark.parametrize("model", sorted(m for m in ENTRIES if "published" in ENTRIES[m]))
def test_counts_agree_with_what_was_published(model: str) -> None:
    parts = ENTRIES[model]["components"]
    for row in ENTRIES[model]["published"]:
        if "components" in row:  # what one published number counts together
            together = sum(parts[name]["params"] for name in row["components"])
            assert abs(together - row["params"]) <= 0.1 * row["params"], (model, row)
            continue
        part = parts[row["component"]]
        elements = part["params"] + part.get("buffers", 0)
        if "params" in row:
            tolerance = 0.1 if row["kind"] == "headline" else 0.0
            assert abs(part["params"] - row["params"]) <= tolerance * row["params"], (model, row)
        elif "bytes" in row:
            assert elements * row["itemsize"] == row["bytes"], (model, row)
        else:
            # Printed with three digits (of GB or GiB): half a unit of the last one, and a file has a header.
            assert abs(elements * row["itemsize"] / 1e9 - row["gb"]) <= 0.006 * row["gb"], (model, row)


def test_aliases_do_not_shadow_entries() -> None:
    for model, entry in ENTRIES.items():
        for alias in entry.get("aliases", ()):
            assert alias not in ENTRIES
            assert resolve(alias).known_as == model


def test_versions_are_unambiguous_and_say_what_they_are() -> None:
    seen: set[str] = set()
    for model, entry in ENTRIES.items():
        for version in entry.get("versions", ()):
            assert version not in ENTRIES and version not in seen
            seen.add(version)
            assert resolve(version).known_as == model
    assert "stabilityai/sdxl-turbo" in seen
    assert "shapes of" in resolve("stabilityai/sdxl-turbo").assumptions[0]


def test_entries_are_compact() -> None:
    sizes = [file.stat().st_size for file in CATALOGUE.glob("*.json")]
    assert max(sizes) < 16_000
    assert sum(sizes) / len(sizes) < 6_000


@pytest.mark.skipif(not SHARED.is_dir(), reason="reference counts are not on this machine")
def test_counts_agree_with_an_independent_computation() -> None:
    reference = json.loads((SHARED / "model-params.json").read_text())
    compared = 0
    for model, parts in reference.items():
        for name, expected in parts.items():
            part = ENTRIES[model]["components"][name]
            assert part["params"] == expected["params"], (model, name)
            assert part.get("buffers", 0) == expected["persistent_buffer_numel"], (model, name)
            compared += 1
    assert compared > 150
