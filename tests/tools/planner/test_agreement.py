"""The planner's figures against virtual runs that were recorded: real diffusers code, PyTorch's allocator step by step.

``flux-shallow`` is FLUX.1-dev with a few of its blocks and every kind of placement; ``sd15-batch8`` is Stable Diffusion
1.5 as it is, eight pictures at once. ``bench/planner_truth.py`` (``Bench.record``) writes such files.
"""

from __future__ import annotations

import gzip
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.hardware import cards
from oomdoctor.planner import estimate
from oomdoctor.planner.fit import vram_margin
from oomdoctor.script import read_script
from oomdoctor.units import GIB
from oomdoctor.values import Estimate, Measurement, Strategy, Target

RECORDED = Path(__file__).parent / "recorded"
SMALL_RAM = 4 * GIB


def recorded(name: str) -> tuple[list[dict[str, Any]], list[Estimate], int]:
    """The runs of a file, the estimates of the same strategies, bytes of the card's context."""
    content = json.loads(gzip.decompress((RECORDED / f"{name}.json.gz").read_bytes()))
    measurement = Measurement.model_validate(content["measurement"])
    script = read_script(content["script"])
    card = next(c for c in cards() if c.name == measurement.timed_on)
    target = Target(card=card, vram_bytes=1 << 42, ram_bytes=1 << 42)
    values = [estimate(Strategy.parse(r["strategy"]), measurement, target, script) for r in content["runs"]]
    return content["runs"], values, card.context_bytes


@pytest.fixture(scope="module", params=["flux-shallow", "sd15-batch8"])
def pairs(request) -> tuple[list[dict[str, Any]], list[Estimate], int]:
    return recorded(request.param)


def test_memory_on_the_card(pairs) -> None:
    runs, values, context = pairs
    assert len(runs) >= 4
    errors = {}
    for run, value in zip(runs, values, strict=True):
        needs = run["reserved"] + context
        says = max(value.vram_bytes, value.load_vram_bytes + context)
        errors[run["strategy"]] = says / needs - 1
        assert says + vram_margin(says) >= needs, f"{run['strategy']} would be called fitting where it does not"
    close = [abs(e) <= 0.05 for e in errors.values()]
    assert statistics.median(map(abs, errors.values())) <= 0.02, errors
    assert sum(close) >= 0.8 * len(close), errors


def test_allocated_memory(pairs) -> None:
    runs, values, _ = pairs
    for run, value in zip(runs, values, strict=True):
        says = max(value.allocated_bytes, value.load_vram_bytes)
        assert says == pytest.approx(run["allocated"], rel=0.05), run["strategy"]


def test_memory_of_the_host(pairs) -> None:
    """The estimate also counts what a driver takes, about 0.3 GiB that a virtual run does not have."""
    runs, values, _ = pairs
    for run, value in zip(runs, values, strict=True):
        error = (value.ram_bytes - run["host"]) / max(run["host"], SMALL_RAM)
        assert -0.02 <= error <= 0.1, run["strategy"]


def test_seconds_in_the_right_order(pairs) -> None:
    """Where the runs differ by a quarter or more, the estimates put them in the same order."""
    runs, values, _ = pairs
    timed = [(r, v) for r, v in zip(runs, values, strict=True) if "low_cpu_mem" not in r["strategy"]]
    # A virtual run pins memory in no time; what that really takes is in the estimate only.
    for run, value in timed:
        for other, other_value in timed:
            if other["seconds"] > 1.25 * run["seconds"] and "bnb_int8" not in run["strategy"]:
                assert other_value.seconds > value.seconds, f"{run['strategy']} / {other['strategy']}"


def test_slicing_does_nothing_for_pictures_that_come_one_at_a_time() -> None:
    content = json.loads(gzip.decompress((RECORDED / "sd15-batch8.json.gz").read_bytes()))
    measurement = Measurement.model_validate(content["measurement"])
    script = read_script(content["script"])
    card = next(c for c in cards() if c.name == measurement.timed_on)
    target = Target(card=card, vram_bytes=1 << 42, ram_bytes=1 << 42)

    def peak(strategy: str) -> int:
        return estimate(Strategy.parse(strategy), measurement, target, script).vram_bytes

    assert peak("vae_slicing+batch_split(1)") == peak("batch_split(1)")
    assert peak("vae_slicing+batch_split(4)") < peak("batch_split(4)")
