"""Calibration finds what a card does: on a virtual card of known rates it gives those rates back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

import oomdoctor
from oomdoctor.errors import NoGpu
from oomdoctor.hardware import card
from oomdoctor.trial.calibration import runner, store
from oomdoctor.trial.zygote import card_dict
from oomdoctor.values import Calibration
from oomdoctor.vgpu.costs import MATMUL_EFFICIENCY

PROGRAM = Path(__file__).with_name("calibrate_on_virtual.py")
CARD = card("rtx-4090")


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TEST_ROOT", str(Path(oomdoctor.__file__).parent))
        patch.setenv("HF_TEST_CARD", json.dumps(card_dict(CARD)))
        return runner.calibrate(program=PROGRAM, driver="580.1")


def test_it_finds_the_rates_of_the_card(calibration: Calibration) -> None:
    known = card_dict(CARD)
    assert calibration.label == CARD.label
    assert calibration.h2d_pinned_bytes_per_second == pytest.approx(known["pcie_bytes_per_second"], rel=0.05)
    assert calibration.h2d_pageable_bytes_per_second == pytest.approx(known["pageable_bytes_per_second"], rel=0.05)
    assert CARD.fp16_flops > calibration.matmul_flops["float16"] > 0.5 * CARD.fp16_flops
    assert calibration.attention_flops > 0.4 * CARD.fp16_flops


def test_it_finds_what_convolutions_hold(calibration: Calibration) -> None:
    assert calibration.convolution_share["float16"] == pytest.approx(1.0, abs=0.02)
    assert calibration.convolution_share["float32"] == pytest.approx(0.5, abs=0.05)


def test_what_was_kept_is_used_for_that_card(calibration: Calibration, tmp_path: Path) -> None:
    file = store.save(calibration.model_copy(update={"context_bytes": 333 << 20}), tmp_path)
    assert file.parent == tmp_path
    found = store.load(CARD.label, calibration.torch, tmp_path)
    changed = store.apply(CARD, found)
    assert changed.context_bytes == 333 << 20
    assert changed.matmul_efficiency == pytest.approx(MATMUL_EFFICIENCY[CARD.compute_capability], abs=0.03)
    assert "calibrated" in changed.source
    sent = card_dict(changed)
    assert sent["pcie_bytes_per_second"] == calibration.h2d_pinned_bytes_per_second
    assert sent["convolution_share"] == calibration.convolution_share


def test_a_broken_file_and_another_card_change_nothing(calibration: Calibration, tmp_path: Path) -> None:
    store.save(calibration, tmp_path)
    (tmp_path / "nvidia-geforce-rtx-4090.9.json").write_text("{")
    assert store.load("NVIDIA GeForce RTX 3060", None, tmp_path) is None
    assert store.load(CARD.label, "9.9", tmp_path) is not None
    assert store.apply(CARD, None) is CARD


def test_a_rate_above_the_peak_is_not_used(calibration: Calibration) -> None:
    fast = calibration.model_copy(update={"matmul_flops": {"float16": 2 * CARD.fp16_flops}})
    assert store.apply(CARD, fast).matmul_efficiency is None


def test_without_a_gpu_it_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(NoGpu, match="calibrate"):
        runner.calibrate()
