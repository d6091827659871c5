"""The real loaders of diffusers and transformers, with JSON configs and no weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.models import CATALOGUE

ROOT = Path(__file__).resolve().parents[3]
pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    scratch = tmp_path_factory.mktemp("scratch")
    paths = [str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("loads.py")), str(CATALOGUE), str(scratch)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert "RESULT " in done.stdout, done.stderr[-3000:]
    results: dict[str, Any] = json.loads(done.stdout.split("RESULT ")[1])
    return results


def good(loads: dict[str, Any], name: str) -> Any:
    result = loads[name]["result"]
    assert "error" not in result, result["trace"]
    return result


def test_flux_in_bfloat16(loads: dict[str, Any]) -> None:
    flux = good(loads, "flux")
    assert flux["pipeline"] == "FluxPipeline"
    assert flux["transformer"] == {
        "class": "FluxTransformer2DModel", "elements": {"bfloat16": 11_901_408_320}, "device": "cpu",
    }  # fmt: skip
    assert flux["text_encoder_2"]["elements"] == {"bfloat16": 4_762_310_656}
    assert flux["tokens"] == [1, 512]
    assert flux["is_clip"]
    assert flux["clip_length"] == 77
    assert flux["shift"] == 3.0


def test_sdxl_variant_is_half_precision(loads: dict[str, Any]) -> None:
    sdxl = good(loads, "sdxl_variant")
    assert sdxl["unet"]["elements"] == {"float16": 2_567_463_684}
    assert sdxl["text_encoder_2"]["elements"] == {"float16": 694_659_840}


def test_wan_keeps_modules_in_float32(loads: dict[str, Any]) -> None:
    elements = good(loads, "wan")["transformer"]["elements"]
    assert sum(elements.values()) == 1_418_996_800
    assert 0 < elements["float32"] < 10_000_000


def test_no_dtype_means_float32(loads: dict[str, Any]) -> None:
    assert good(loads, "no_dtype")["elements"] == {"float32": 859_520_964}


def test_like(loads: dict[str, Any]) -> None:
    assert good(loads, "like")["elements"] == {"bfloat16": 11_891_178_560}
    assert any("--like" in note for note in loads["like"]["notes"])


def test_unknown_model_ends_the_run_with_the_ways_out(loads: dict[str, Any]) -> None:
    result = loads["unknown_model"]["result"]
    assert result["error"] == "MissingModel"
    assert "--configs DIR" in result["text"]


def test_unknown_variant_is_refused_by_diffusers_itself(loads: dict[str, Any]) -> None:
    result = loads["unknown_variant"]["result"]
    assert result["error"] == "ValueError"
    assert "variant" in result["text"]


def test_real_file_gives_its_header_only(loads: dict[str, Any]) -> None:
    vae = good(loads, "folder_with_a_real_file")
    assert set(vae["elements"]) == {"float16"}


def test_absent_lora_is_a_stated_guess(loads: dict[str, Any]) -> None:
    lora = good(loads, "lora")
    assert lora["adapters"] == {"unet": ["style"]}
    assert lora["layers"] == 128
    assert any("rank 16" in note for note in loads["lora"]["notes"])


def test_absent_single_file_is_its_base(loads: dict[str, Any]) -> None:
    assert good(loads, "single_file")["elements"] == {"bfloat16": 11_891_178_560}
    assert any("FLUX.1-schnell" in note for note in loads["single_file"]["notes"])


def test_absent_picture_is_blank_in_the_stated_size(loads: dict[str, Any]) -> None:
    assert good(loads, "picture") == [768, 512]
    assert any("blank" in note for note in loads["picture"]["notes"])
