"""What the child sees of our environment."""

from __future__ import annotations

import pytest
from oomdoctor.trial.zygote import child_environment


def test_hashes_are_the_same_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders go through sets of names; what they ask for first decides where the allocator splits."""
    monkeypatch.setenv("PYTHONHASHSEED", "4711")
    assert child_environment()["PYTHONHASHSEED"] == "0"


def test_secrets_and_allocator_settings_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        monkeypatch.setenv(name, "x")
        assert name not in child_environment()
