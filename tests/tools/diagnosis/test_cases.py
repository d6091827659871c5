"""The reading of reported cases, by the map that bench/diagnosis.py publishes; skipped where the cases are not at hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from oomdoctor.values import Kind, Stage


def _bench() -> ModuleType:
    file = Path(__file__).resolve().parents[3] / "bench" / "diagnosis.py"
    spec = importlib.util.spec_from_file_location("bench_diagnosis", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


BENCH = _bench()


def test_the_map_speaks_of_kinds_and_stages_that_exist() -> None:
    kinds = {kind.value for kind in Kind}
    stages = {stage.value for stage in Stage}
    for table in (BENCH.KINDS, BENCH.CLASSES, BENCH.MASKS):
        assert all(right and right <= kinds for right in table.values())
    assert all(right and right <= stages for right in BENCH.STAGES.values())


def test_a_case_is_pasted_as_a_traceback() -> None:
    case = {
        "title": "dies",
        "frames": ["draw.py:7 main image = pipe(x)", "[a node]", "diffusers/models/vae.py decode"],
        "oom_message": "CUDA out of memory.",
        "message_is_verbatim": True,
        "family": "cuda",
    }
    assert BENCH.pasted(case, title=True).split("\n") == [
        "dies",
        "Traceback (most recent call last):",
        '  File "draw.py", line 7, in main',
        "    image = pipe(x)",
        "  [a node]",
        '  File "diffusers/models/vae.py", line 1, in decode',
        "CUDA out of memory.",
    ]


def test_reported_cases() -> None:
    file = BENCH.find_cases()
    if file is None:
        pytest.skip("no shared file of cases here")
    scores = BENCH.judge(BENCH.load_cases(file))
    assert scores["memory"].of > 100 and scores["stage"].of > 40
    assert scores["memory"].share >= 0.97, scores["memory"].misses
    assert scores["kind"].share >= 0.90, scores["kind"].misses
    assert scores["stage"].share >= 0.95, scores["stage"].misses
    assert scores["stage_without_title"].share >= 0.90, scores["stage_without_title"].misses


def test_timings_are_taken() -> None:
    assert BENCH.timings(repeat=1)["10 MB"] < 3.0
