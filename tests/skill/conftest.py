"""A warm virtual card for the code of the skill, with models of two blocks."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.hardware import card
from oomdoctor.trial import Zygote

ROOT = Path(__file__).parents[2]


def bench(name: str) -> Any:
    """A program of bench/ as a module."""
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ROOT / "bench"))


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """One interpreter that has imported torch and diffusers, and forks per run."""
    pytest.importorskip("diffusers")
    place = bench("cut_catalogue").write(tmp_path_factory.mktemp("catalogue"), 2)
    loading: dict[str, Any] = {"catalogue": str(place), "configs": [], "like": {}, "hf_cache": None}
    with Zygote(None, card("h100-80gb"), loading) as warm:
        yield warm
