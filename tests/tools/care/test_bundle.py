"""The bundle for a bug report: useful, and without a word of the user's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oomdoctor import bundle, cli

EXAMPLE = Path(__file__).parents[3] / "examples" / "flux-12gb"
SECRET = """\
# sekret comment
import torch
from diffusers import FluxPipeline
from sekret_company import sekret_helper

sekret_prompt = "a sekret prompt"
sekret_pipe = FluxPipeline.from_pretrained("sekret/flux-tuned", torch_dtype=torch.bfloat16, cache_dir="/home/sekret")
sekret_pipe.load_lora_weights("/home/sekret/lora.safetensors")
sekret_pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn)
sekret_pipe.to("cuda")
class SekretPipeline(FluxPipeline):
    pass
other = SekretPipeline.from_pretrained("sekret/other")
image = sekret_pipe(sekret_prompt, height=768, width=1344, negative_prompt="sekret", num_inference_steps=20)
"""
LOG = """\
Traceback (most recent call last):
  File "/home/sekret/sekret_script.py", line 10, in sekret_main
    sekret_pipe.to("cuda", sekret_argument)
  File "/home/sekret/venv/lib/python3.11/site-packages/diffusers/pipelines/pipeline_utils.py", line 545, in to
    module.to(device, dtype)
  File "/home/sekret/venv/lib/python3.11/site-packages/torch/nn/modules/module.py", line 1355, in to
    return self._apply(convert)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 72.00 MiB. GPU 0 has a total capacity of 11.76 GiB of \
which 58.69 MiB is free. Process 4242 has 3.00 GiB memory in use. Of the allocated memory 8.56 GiB is allocated by \
PyTorch, and 12.43 MiB is reserved by PyTorch but unallocated. sekret
"""


def made(script: str | None, log: str | None) -> dict[str, Any]:
    return bundle.bundle(script, log, check=False)


def test_it_says_what_a_maintainer_needs():
    report = made((EXAMPLE / "script.py").read_text(), (EXAMPLE / "traceback.txt").read_text())
    (pipeline,) = report["script"]["pipelines"]
    assert pipeline["class"] == "FluxPipeline" and pipeline["dtype"] == "bfloat16"
    assert pipeline["model"] == "black-forest-labs/FLUX.1-dev"
    assert pipeline["calls"] == [{"height": 1024, "width": 1024, "num_inference_steps": 28, "guidance_scale": 3.5}]
    assert report["traceback"]["is_oom"] and report["traceback"]["stage"] == "place"
    assert report["traceback"]["error_type"] == "torch.OutOfMemoryError"
    assert any(f.startswith("diffusers/pipelines/pipeline_utils.py:") for f in report["traceback"]["frames"])
    assert report["oom_doctor"] and "torch" in report["versions"]


def test_nothing_of_the_user_is_in_it():
    report = made(SECRET, LOG)
    text = json.dumps(report).lower()
    assert "sekret" not in text and "4242" not in text
    first = report["script"]["pipelines"][0]
    assert first["model"] == "not in the catalogue" and first["techniques"] == ["enable_layerwise_casting"]
    assert first["calls"] == [{"height": 768, "width": 1344, "num_inference_steps": 20}]
    assert report["traceback"]["capacity_bytes"] == int(11.76 * 2**30)


def test_interpreters_and_processes_stay_out():
    text = json.dumps(made(None, None))
    assert "/python" not in text and "processes" not in text and str(Path.home()) not in text


@pytest.mark.parametrize("script", ["def broken(:", "", "print('sekret')", "import sekret", "%%bash\nsekret"])
def test_scripts_that_cannot_be_read_give_a_count_and_no_text(script: str):
    assert "sekret" not in json.dumps(made(script, None)["script"])


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_free_text_never_gets_through(words: str):
    """Whatever stands in a log or a script, only known words and numbers come out."""
    marked = f"zq{words}zq"
    found = {"a": bundle.traceback_facts(f"{marked}\nzqError: {marked}"), "b": bundle.script_facts(f"x = {marked!r}\n")}
    assert "zq" not in json.dumps(found)


def test_the_command_writes_a_new_file_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "report.json"
    arguments = ["report", "--no-check", "--traceback", str(EXAMPLE / "traceback.txt"), "--write", str(out)]
    assert cli.main(arguments) == 0
    assert json.loads(out.read_text())["traceback"]["kind"] == "load_time"
    assert cli.main(arguments) == 2
    assert "exists" in capsys.readouterr().err


def test_a_missing_file_is_the_users_error(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["report", "--no-check", "--script", "/nowhere/x.py"]) == 2
    assert "cannot be read" in capsys.readouterr().err
