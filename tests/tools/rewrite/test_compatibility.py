"""What the libraries refuse, as recorded by bench/compatibility.py, the rewriter refuses too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.errors import NotApplicable
from oomdoctor.rewrite import rewrite
from oomdoctor.values import Strategy

RECORD: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "bench" / "recorded" / "compatibility.json").read_text("utf-8")
)
IDS = {
    "group_leaf": "group_offload(leaf)", "group_leaf_stream": "group_offload(leaf, stream=true)",
    "group_block": "group_offload(block, blocks=2)", "group_disk": "group_offload(leaf, disk=true)",
    "attention_native_flash": "attention_backend(_native_flash)", "cache_first_block": "cache(first_block)",
    "compile_regional": "compile(regional)", "gguf": "gguf(transformer, file=flux1-dev-Q4_K_S.gguf)",
}  # fmt: skip
"""Cells of the record -> strategies; the others have the technique's own name."""
SCRIPT = """\
import torch
from diffusers import {pipeline}

pipe = {pipeline}.from_pretrained("{model}", torch_dtype=torch.bfloat16)
pipe.to("cuda")
images = pipe("a cat", num_images_per_prompt=2).images
"""
CLASSES = {
    "black-forest-labs/FLUX.1-dev": "FluxPipeline",
    "stabilityai/stable-diffusion-xl-base-1.0": "StableDiffusionXLPipeline",
}


def refusals(pair: str, row: dict[str, Any]) -> str | None:
    """Our reason against a pair; None when it is written."""
    strategy = "+".join(IDS.get(name, name) for name in pair.split(" + "))
    if "xl" in row["model"]:
        strategy = strategy.replace("transformer", "unet")
    script = SCRIPT.format(pipeline=CLASSES[row["model"]], model=row["model"])
    try:
        rewrite(script, Strategy.parse(strategy), versions=RECORD["versions"])
    except NotApplicable as reason:
        return str(reason)
    return None


@pytest.mark.parametrize("pair", [k for k, row in RECORD["pairs"].items() if row["library"] in ("refused", "failed")])
def test_what_the_libraries_refuse_is_not_written(pair: str) -> None:
    assert refusals(pair, RECORD["pairs"][pair]), f"the library says: {RECORD['pairs'][pair]['words']}"


OURS = ("model_offload + sequential_offload", "sequential_offload + compile_regional", "sequential_offload + fp8_casting",
        "sequential_offload + torchao_int8", "fp8_casting + bnb_int8", "fp8_casting + bnb_nf4",
        "fp8_casting + torchao_int8", "group_leaf + group_block", "group_leaf + group_disk",
        "group_leaf + group_leaf_stream", "group_block + group_disk", "group_leaf_stream + group_block",
        "group_leaf_stream + group_disk", "fp8_casting + gguf", "attention_native_flash + attention_slicing",
        "attention_native_flash + channels_last")  # fmt: skip
"""Refused though the call runs on the virtual card: the second offloading replaces the first, sequential offloading
swaps weights that others have wrapped, one way to store a weight is enough, and backends mean nothing to a U-Net."""


def test_what_runs_is_refused_for_a_known_reason_only() -> None:
    ran = {k: row for k, row in RECORD["pairs"].items() if row["library"] == "ok" and row["model"] in CLASSES}
    refused = {pair for pair, row in ran.items() if refusals(pair, row)}
    assert refused <= set(OURS), refused - set(OURS)
