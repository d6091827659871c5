"""A patch that changes the work is seen."""

from __future__ import annotations

import pytest
from oomdoctor.rewrite import rewrite
from oomdoctor.rewrite.promise import broken
from oomdoctor.script import read_script
from oomdoctor.values import Strategy

SCRIPT = """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
images = pipe("a cat", height=1024, width=1024, num_inference_steps=30, num_images_per_prompt=4).images
"""


@pytest.mark.parametrize("strategy", ["model_offload+vae_slicing", "vae_slicing+batch_split(1)", "vae_tiling"])
def test_techniques_keep_it(strategy: str) -> None:
    patched = rewrite(SCRIPT, Strategy.parse(strategy)).source
    assert patched != SCRIPT
    assert broken(read_script(SCRIPT), read_script(patched)) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("height=1024", "height=512", "height=512 instead of 1024"),
        ("num_inference_steps=30", "num_inference_steps=8", "num_inference_steps=8"),
        ("num_images_per_prompt=4", "num_images_per_prompt=1", "1 pictures per call instead of 4"),
        (", num_images_per_prompt=4", "", "1 pictures per call instead of 4"),
        ("height=1024, ", "", "height is no longer given"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "stabilityai/sdxl-turbo", "another model"),
        ("images = pipe(", "if False:\n    pass\nimages = list(", "0 calls instead of 1"),
    ],
)
def test_a_changed_job_is_named(old: str, new: str, words: str) -> None:
    found = broken(read_script(SCRIPT), read_script(SCRIPT.replace(old, new)))
    assert any(words in sentence for sentence in found), found
