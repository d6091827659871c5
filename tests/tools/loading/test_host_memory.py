"""What loading holds in RAM, virtual against real: private memory and file pages of this very machine.

A model of a quarter GiB is saved once; each case loads it in a fresh process for real (figures from the kernel) and in
a fresh process virtually (our figures).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

MIB = 1 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are Linux's")

SAVE = """
import sys, torch
from diffusers import SD3Transformer2DModel
model = SD3Transformer2DModel(
    sample_size=32, num_layers=9, attention_head_dim=64, num_attention_heads=12, caption_projection_dim=768,
    joint_attention_dim=1024, pooled_projection_dim=512, pos_embed_max_size=32,
).to(torch.float16)
model.save_pretrained(sys.argv[1])
print(sum(p.numel() for p in model.parameters()))
"""

READ = """
def held(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(key))
"""

LOAD = """
import gc, json, sys, torch
from diffusers import SD3Transformer2DModel
from diffusers.models.modeling_utils import load_state_dict
%(before)s
model = SD3Transformer2DModel.from_pretrained(sys.argv[1], torch_dtype=torch.%(dtype)s)
%(then)s
gc.collect()
%(after)s
"""

REAL_BEFORE = "anonymous, mapped = held('RssAnon'), held('RssFile')"
REAL_AFTER = "touched = sum(float(p.flatten()[::512].float().sum()) for p in model.parameters())\n" \
    "print(json.dumps([held('RssAnon') - anonymous, held('RssFile') - mapped]))"  # fmt: skip
VIRTUAL_BEFORE = "host = world.host\nbase = dict(host.by_kind)"
VIRTUAL_AFTER = (
    "print(json.dumps([host.by_kind['anonymous'] - base['anonymous'], host.by_kind['mapped'] - base['mapped']]))"
)
VIRTUAL = """
import sys
from oomdoctor.vgpu import VirtualCard, virtual_gpu
import torch
torch.cuda.device_count()
with virtual_gpu(VirtualCard("a", "A", total_bytes=8 << 30)) as world:
    from oomdoctor.loading.install import install
    install({"catalogue": "", "configs": [], "like": {}, "hf_cache": None, "scratch": sys.argv[2]}, [])
"""


def run(source: str, *arguments: str) -> str:
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments], env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("saved")
    return folder, int(run(SAVE, str(folder)))


@pytest.mark.parametrize(
    ("dtype", "then", "anonymous_per_parameter", "mapped_per_parameter"),
    [
        ("float16", "", 0, 2),
        ("float32", "", 4, 0),
        ("float16", "model = model.float()", 4, 0),
        ("float16", "del model; gc.collect(); model = torch.nn.Linear(1, 1)", 0, 0),
    ],
    ids=["as saved", "cast while loading", "cast after loading", "let go"],
)
def test_virtual_loading_holds_what_real_loading_holds(
    saved: tuple[Path, int], tmp_path: Path, dtype: str, then: str, anonymous_per_parameter: int,
    mapped_per_parameter: int,
) -> None:  # fmt: skip
    folder, parameters = saved
    real_source = READ + LOAD % {"dtype": dtype, "then": then, "before": REAL_BEFORE, "after": REAL_AFTER}
    inner = LOAD % {"dtype": dtype, "then": then, "before": VIRTUAL_BEFORE, "after": VIRTUAL_AFTER}
    real = json.loads(run(real_source, str(folder)))
    virtual = json.loads(run(VIRTUAL + textwrap.indent(inner, "    "), str(folder), str(tmp_path)))
    near = 40 * MIB  # libraries that the first load imports, the allocator's own slack
    assert virtual[0] == pytest.approx(anonymous_per_parameter * parameters, abs=8 * MIB)
    assert virtual[1] == pytest.approx(mapped_per_parameter * parameters, abs=8 * MIB)
    assert real[0] == pytest.approx(virtual[0], abs=near)
    assert real[1] == pytest.approx(virtual[1], abs=near)
