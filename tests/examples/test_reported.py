"""The cases of ``examples/reported``: each is complete, read as it is meant, and diagnosed in agreement with its script.

That each is cured is shown by ``bench/reported.py``, which takes minutes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from oomdoctor.diagnosis import diagnose
from oomdoctor.hardware import card
from oomdoctor.script import read_script
from oomdoctor.techniques import all_techniques
from oomdoctor.values import Kind, Stage

CASES = sorted(p.parent for p in (Path(__file__).parents[2] / "examples" / "reported").glob("*/case.json"))
each = pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)


def test_there_are_ten_at_least():
    assert len(CASES) >= 10


@each
def test_a_case_names_its_thread_a_known_card_and_known_techniques(folder: Path):
    case = json.loads((folder / "case.json").read_text("utf-8"))
    assert case["link"].startswith("https://github.com/") and case["about"].endswith(".")
    assert card(case["gpu"]).total_bytes > 0 and case["ram_gib"] > 0
    assert case["cured_by"] and set(case["cured_by"]) <= set(all_techniques())


@each
def test_its_script_is_understood(folder: Path):
    script = read_script((folder / "script.py").read_text("utf-8"), path="script.py")
    assert script.main is not None and script.main.calls


@each
def test_its_message_is_a_memory_error_at_a_line_of_the_script(folder: Path):
    log = folder / "traceback.txt"
    if not log.exists():
        pytest.skip("the thread does not quote its message")
    source = (folder / "script.py").read_text("utf-8")
    found = diagnose(log.read_text("utf-8"), script=read_script(source, path="script.py"))
    assert found.is_oom and found.kind in (Kind.VRAM_CAPACITY, Kind.SINGLE_TENSOR, Kind.LOAD_TIME)
    assert found.stage in (Stage.PLACE, Stage.LOAD, Stage.TEXT_ENCODE, Stage.DENOISE, Stage.VAE_DECODE)
