"""The choice of the attention kernel, held against what PyTorch itself chose (recorded by ``bench/oracle/kernels.py``)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from oomdoctor.vgpu.attention_choice import Attention, Backends, NoKernel, choose

RECORDED = sorted((Path(__file__).parent / "recorded").glob("attention-*.json"))


def call_of(text: str) -> Attention:
    query, key, value, dtype, mask, flags = text.split(" | ")
    shapes = [tuple(map(int, shape.split())) for shape in (query, key, value)]
    return Attention(
        *shapes,
        getattr(torch, dtype),
        tuple(map(int, mask.split())) or None,
        causal="causal" in flags,
        grouped="grouped" in flags,
        unit_stride="strided" not in flags,
    )


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_recorded_choice_is_ours(path: Path) -> None:
    major, minor = path.stem.rpartition("-")[2].split(".")
    wrong = []
    seen = 0
    for card, cases in json.loads(path.read_text()).items():
        capability = divmod(int(card), 10)
        for text, kernel in cases.items():
            seen += 1
            ours = choose(call_of(text), capability, (int(major), int(minor)))
            if ours != kernel:
                wrong.append(f"{card}: {text}: PyTorch {kernel}, here {ours}")
    assert seen > 400
    assert not wrong, "\n".join(wrong)


def test_two_versions_are_recorded() -> None:
    assert len(RECORDED) >= 2


def test_a_disabled_backend_is_passed_over_and_none_is_an_error() -> None:
    shape = (1, 24, 4096, 128)
    call = Attention(shape, shape, shape, torch.bfloat16)
    assert choose(call, (8, 9)) == "flash"
    assert choose(call, (8, 9), enabled=Backends(flash=False)) == "efficient"
    assert choose(call, (8, 9), enabled=Backends(flash=False, efficient=False)) == "math"
    only_cudnn = Backends(flash=False, efficient=False, math=False)
    assert choose(call, (8, 9), enabled=only_cudnn) == "cudnn"
    with pytest.raises(NoKernel, match="No available kernel"):
        choose(call, (7, 5), enabled=only_cudnn)
