"""From an id or a path to components; and the refusals."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.errors import InputError, UnknownModel
from oomdoctor.models import resolve


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def write(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def pipeline_folder(folder: Path) -> Path:
    write(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.42.1",
            "safety_checker": [None, None],
            "requires_safety_checker": False,
            "unet": ["diffusers", "UNet2DConditionModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
        },
    )
    write(folder / "unet" / "config.json", {"_class_name": "UNet2DConditionModel", "sample_size": 64})
    write(folder / "tokenizer" / "tokenizer_config.json", {"model_max_length": 77})
    return folder


def test_catalogue_entry() -> None:
    files = resolve("black-forest-labs/FLUX.1-dev")
    assert files.pipeline_class == "FluxPipeline"
    assert files.gated
    transformer = files.component("transformer")
    assert transformer is not None
    assert (transformer.class_name, transformer.dtype) == ("FluxTransformer2DModel", "bfloat16")
    assert transformer.params == 11_901_408_320
    assert files.component("unet") is None


def test_renamed_organisation_and_case() -> None:
    assert resolve("THUDM/CogVideoX-5b").known_as == "zai-org/CogVideoX-5b"
    assert resolve("runwayml/stable-diffusion-v1-5").known_as == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert resolve("Black-Forest-Labs/flux.1-DEV").known_as == "black-forest-labs/FLUX.1-dev"


def test_local_folder_wins_and_reads_dtype_from_the_header(tmp_path: Path) -> None:
    folder = pipeline_folder(tmp_path / "mine")
    header = json.dumps({"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header + bytes(8)
    )
    files = resolve(str(folder))
    assert files.source == "folder"
    assert files.absent == ("safety_checker",)
    assert files.settings == {"requires_safety_checker": False}
    unet, tokenizer = files.component("unet"), files.component("tokenizer")
    assert unet is not None and unet.dtype == "bfloat16"
    assert tokenizer is not None and tokenizer.max_length == 77


def test_configs_folder_describes_an_unknown_id(tmp_path: Path) -> None:
    pipeline_folder(tmp_path / "me--private")
    assert resolve("me/private", configs_dir=tmp_path).source == "configs"
    files = resolve("any/thing", configs_dir=tmp_path / "me--private")
    assert files.pipeline_class == "StableDiffusionPipeline"
    assert "any/thing" in files.assumptions[0]


def test_hf_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "cache" / "models--me--cached"
    pipeline_folder(repository / "snapshots" / "abc")
    pipeline_folder(repository / "snapshots" / "def")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("def")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    files = resolve("me/cached")
    assert files.source == "cache"
    assert files.folder is not None and files.folder.endswith("def")


def test_like() -> None:
    files = resolve("me/private-finetune", like="black-forest-labs/FLUX.1-dev")
    assert files.pipeline_class == "FluxPipeline"
    assert files.model == "me/private-finetune"
    assert "--like" in files.assumptions[0]
    with pytest.raises(UnknownModel, match="no/such"):
        resolve("me/private-finetune", like="no/such")


def test_folder_of_another_machine_is_found_by_its_name() -> None:
    files = resolve("/workspace/models/FLUX.1-dev")
    assert files.known_as == "black-forest-labs/FLUX.1-dev"
    assert "not on this machine" in files.assumptions[0]


def test_unknown_model_names_the_ways_out() -> None:
    with pytest.raises(UnknownModel) as caught:
        resolve("me/FLUX.1-dv")
    for words in ("black-forest-labs/FLUX.1-dev", "--configs DIR", "--like REPO"):
        assert words in str(caught.value)


def test_missing_configs_folder_and_broken_json(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="does not exist"):
        resolve("a/b", configs_dir=tmp_path / "nowhere")
    (tmp_path / "model_index.json").write_text("{not json")
    with pytest.raises(InputError, match=r"model_index\.json is not JSON"):
        resolve(str(tmp_path))
    (tmp_path / "model_index.json").write_text("[1]")
    with pytest.raises(InputError, match="JSON object"):
        resolve(str(tmp_path))


@given(st.text(max_size=60))
def test_any_text_is_found_or_refused(text: str) -> None:
    try:
        files = resolve(text)
    except InputError as error:
        assert str(error)
    else:
        assert files.components


def test_needs_no_torch() -> None:
    code = "import sys; import oomdoctor.models as m; m.resolve('black-forest-labs/FLUX.1-dev'); print('torch' in sys.modules)"
    path = str(Path(__file__).resolve().parents[3] / "tools")
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
