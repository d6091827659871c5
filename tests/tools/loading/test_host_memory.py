"""What loading holds in RAM, virtual against real: private memory and file pages of this very machine.

A model of a quarter GiB is saved once; each case loads it for real (figures from the kernel) and virtually (our
figures), in a fork of its own of a process that has only imported the libraries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

MIB = 1 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are Linux's")

CASES = {
    "as saved": ("float16", "", 0, 2),
    "cast while loading": ("float32", "", 4, 0),
    "cast after loading": ("float16", "model = model.float()", 4, 0),
    "let go": ("float16", "del model; gc.collect(); model = torch.nn.Linear(1, 1)", 0, 0),
}
"""What is loaded as, what is done then, and bytes per parameter that are private and that are file pages."""

EACH_IN_A_FORK = """
import gc, json, os, sys, torch
from diffusers import SD3Transformer2DModel
from diffusers.models.modeling_utils import load_state_dict

def in_a_fork(work):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, json.dumps(work()).encode())
        os._exit(0)
    os.close(write)
    said = os.fdopen(read).read()
    os.waitpid(pid, 0)
    return json.loads(said)

def load(dtype, then):
    global model
    model = SD3Transformer2DModel.from_pretrained(sys.argv[1], torch_dtype=getattr(torch, dtype))
    exec(then, globals())
    gc.collect()

cases = json.loads(sys.argv[2])
"""

REAL = """
def save():
    model = SD3Transformer2DModel(
        sample_size=32, num_layers=9, attention_head_dim=64, num_attention_heads=12, caption_projection_dim=768,
        joint_attention_dim=1024, pooled_projection_dim=512, pos_embed_max_size=32,
    ).to(torch.float16)
    model.save_pretrained(sys.argv[1])
    return sum(p.numel() for p in model.parameters())

def held(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(key))

def case(dtype, then):
    anonymous, mapped = held("RssAnon"), held("RssFile")
    load(dtype, then)
    touched = sum(float(p.flatten()[::512].float().sum()) for p in model.parameters())
    return [held("RssAnon") - anonymous, held("RssFile") - mapped]

parameters = in_a_fork(save)
print(json.dumps([parameters, [in_a_fork(lambda: case(*given)) for given in cases]]))
"""

VIRTUAL = """
from oomdoctor.vgpu import VirtualCard, virtual_gpu
from oomdoctor.loading.install import install

def case(dtype, then):
    with virtual_gpu(VirtualCard("a", "A", total_bytes=8 << 30)) as world:
        install({"catalogue": "", "configs": [], "like": {}, "hf_cache": None, "scratch": sys.argv[3]}, [])
        base = dict(world.host.by_kind)
        load(dtype, then)
        return [world.host.by_kind[kind] - base[kind] for kind in ("anonymous", "mapped")]

print(json.dumps([in_a_fork(lambda: case(*given)) for given in cases]))
"""


def run(source: str, *arguments: str) -> list[Any]:
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", EACH_IN_A_FORK + source, *arguments],
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.slow
def test_virtual_loading_holds_what_real_loading_holds(tmp_path: Path) -> None:
    given = json.dumps([case[:2] for case in CASES.values()])
    parameters, real = run(REAL, str(tmp_path / "model"), given)
    virtual = run(VIRTUAL, str(tmp_path / "model"), given, str(tmp_path))
    near = 40 * MIB  # libraries that the first load imports, the allocator's own slack
    for name, held, predicted in zip(CASES, real, virtual, strict=True):
        *_, anonymous, mapped = CASES[name]
        assert predicted[0] == pytest.approx(anonymous * parameters, abs=8 * MIB), name
        assert predicted[1] == pytest.approx(mapped * parameters, abs=8 * MIB), name
        assert held[0] == pytest.approx(predicted[0], abs=near), name
        assert held[1] == pytest.approx(predicted[1], abs=near), name
