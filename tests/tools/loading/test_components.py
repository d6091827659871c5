"""What a measurement says a component weighs is what the really loaded module weighs, to the byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.models import CATALOGUE
from oomdoctor.trial.measuring import components_of
from oomdoctor.values import ModuleNode

pytest.importorskip("diffusers")
pytest.importorskip("torchao")
ROOT = Path(__file__).resolve().parents[3]


def child(*arguments: str) -> Any:
    paths = [str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("tiny.py")), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert "RESULT " in done.stdout, done.stderr[-4000:]
    return json.loads(done.stdout.split("RESULT ")[1])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pipelines")
    child("save", str(folder))
    scratch = str(tmp_path_factory.mktemp("scratch"))
    return child("real", str(folder)), child("virtual", str(folder), scratch, str(CATALOGUE))


def test_bytes_of_every_component_in_every_form(both: tuple[dict[str, int], dict[str, Any]]) -> None:
    real, virtual = both
    found = {}
    for load, nodes in virtual.items():
        known = [ModuleNode.model_validate({k: v for k, v in n.items() if k in ModuleNode.model_fields}) for n in nodes]
        for component in components_of(tuple(known)):
            found[f"{load}/{component.name}"] = component.loaded_bytes
    assert len(real) > 100
    assert found == real


def test_quantised_forms_are_smaller(both: tuple[dict[str, int], dict[str, Any]]) -> None:
    real, _ = both
    halves = [name for name in real if "/int8/" in name]
    assert len(halves) >= 10
    assert all(real[name] < real[name.replace("/int8/", "/bfloat16/")] for name in halves)
