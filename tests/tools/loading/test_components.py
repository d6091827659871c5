"""What a measurement says a component weighs is what the really loaded module weighs, to the byte.

A cross of families and forms that takes seconds; ``bench/exactness`` does all of them, and its record is checked here.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from oomdoctor.models import catalogue

for needed in ("diffusers", "torchao", "bitsandbytes", "gguf"):
    pytest.importorskip(needed)
BENCH = Path(__file__).resolve().parents[3] / "bench"
TINY = BENCH / "exactness" / "tiny.json"
SAMPLE = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": ("transformer", "vae"),  # parts kept in fp32; a VAE that is offloaded in parts
    "black-forest-labs/FLUX.2-klein-4B": ("text_encoder",),  # tied output embeddings
    "stabilityai/stable-diffusion-3-medium-diffusers": ("transformer", "text_encoder"),  # a buffer; a projection last
    "genmo/mochi-1-preview": ("text_encoder",),  # T5: parts in fp32 when loaded in fp16 only
}
FORMS = ["float16", "bfloat16", "bnb-int8-bfloat16", "bnb-nf4-bfloat16", "gguf"]


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"exactness_{name}", BENCH / "exactness" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def families() -> dict[tuple[str, ...], list[str]]:
    """Set of component classes -> the models of the catalogue that have it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for model, entry in catalogue().items():
        classes = (part["class"] for part in entry["components"].values() if part and "params" in part)
        found.setdefault(tuple(sorted(classes)), []).append(model)
    return found


def test_every_family_has_tiny_models() -> None:
    tiny = json.loads(TINY.read_text())
    for classes, members in families().items():
        made = [model for model in members if model in tiny]
        assert made, f"run bench/exactness/shrink.py bench/exactness/tiny.json {members[0]}"
        assert tuple(sorted(f"{library}.{name}" for library, name, _ in tiny[made[0]].values())) == classes


def test_every_figure_of_every_form(tmp_path: Path) -> None:
    tiny = json.loads(TINY.read_text())
    chosen: dict[str, Any] = {model: {name: tiny[model][name] for name in names} for model, names in SAMPLE.items()}
    rows = module("compare").run(chosen, FORMS, tmp_path)
    assert [row for row in rows if not row.equal] == []
    seen = {row.figure for row in rows}
    assert {"loaded", "params", "leaf", "block", "blocks", "unmatched", "fp8", "pinned"} <= seen
    assert {"bfloat16: int8_bytes", "bfloat16: nf4_bytes"} <= seen
    assert {row.key.rpartition("/")[2] for row in rows} == set(FORMS)
    assert not any(row.figure == "load" for row in rows)
    assert len(rows) > 120


def test_the_record_has_every_family_and_no_difference() -> None:
    file = BENCH / "recorded" / "exactness.json"
    if not file.is_file():
        pytest.skip("python bench/exactness --record has not been run through")
    record = json.loads(file.read_text())
    assert record["differences"] == []
    assert {family for members in families().values() for family in members} >= set(record["families"])
    recorded = {classes for classes, members in families().items() if set(members) & set(record["families"])}
    assert recorded == set(families())
    assert all(count["equal"] > 30 for count in record["forms"].values())
