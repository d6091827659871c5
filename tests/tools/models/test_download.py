"""What a first load fetches, from the script and what describes its models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from oomdoctor.models.download import first_load_bytes
from oomdoctor.script import read_script

HEAD = "import torch\nfrom diffusers import *\n"
FLUX = 'black-forest-labs/FLUX.1-dev"'


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def fetched(source: str) -> int | None:
    use = read_script(HEAD + source + '\npipe("a cat")\n').main
    assert use is not None
    return first_load_bytes(use)


def test_weights_in_the_type_they_are_stored_in() -> None:
    whole = fetched(f'pipe = FluxPipeline.from_pretrained("{FLUX}, torch_dtype=torch.bfloat16)')
    parts = (11_901_408_320 + 4_762_310_656 + 123_060_480 + 83_819_683) * 2
    assert whole is not None and abs(whole - parts) < 1 << 20
    again = fetched(f'pipe = FluxPipeline.from_pretrained("{FLUX}, torch_dtype=torch.float32)')
    assert again == whole  # what is computed in does not matter


def test_variants_and_parts_that_are_given_or_left_out() -> None:
    model = "stabilityai/stable-diffusion-xl-base-1.0"
    full = fetched(f'pipe = StableDiffusionXLPipeline.from_pretrained("{model}")')
    half = fetched(f'pipe = StableDiffusionXLPipeline.from_pretrained("{model}", variant="fp16")')
    assert full is not None and half is not None and full == 2 * half
    without = fetched(f'pipe = FluxPipeline.from_pretrained("{FLUX}, text_encoder_2=None)')
    whole = fetched(f'pipe = FluxPipeline.from_pretrained("{FLUX})')
    assert whole is not None and without == whole - 9_524_621_312
    other = fetched(
        'vae = AutoencoderKL.from_pretrained("madebyollin/sdxl-vae-fp16-fix", torch_dtype=torch.float16)\n'
        f'pipe = StableDiffusionXLPipeline.from_pretrained("{model}", vae=vae, variant="fp16")'
    )
    assert other is not None and other >= half


@pytest.mark.parametrize(
    "source",
    [
        'pipe = FluxPipeline.from_pretrained("nobody/knows-this")',
        'pipe = StableDiffusionXLPipeline.from_single_file("./model.safetensors")',
        f'pipe = FluxPipeline.from_pretrained("{FLUX})\npipe.load_lora_weights("me/style")',
    ],
)
def test_what_cannot_be_known_is_not_guessed(source: str) -> None:
    assert fetched(source) is None


def test_what_is_here_already_is_not_fetched(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    assert fetched(f'pipe = StableDiffusionPipeline.from_pretrained("{folder}")') == 0
