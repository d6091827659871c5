"""A scenario made by hand, for tests that need no run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from oomdoctor_evals.loader import load
from oomdoctor_evals.values import Scenario

sys.path.insert(0, str(Path(__file__).parent))
from by_hand import write_scenario


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return load(write_scenario(tmp_path / "by_hand" / "one"))
