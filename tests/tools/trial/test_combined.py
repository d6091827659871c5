"""Pipelines that hand their results on, and one that is made of two: names, weights and calls as the script has them."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

from oomdoctor.doctor import Doctor
from oomdoctor.hardware import card, target_for
from oomdoctor.job import read_job

DECODER = "kandinsky-community/kandinsky-2-2-decoder"
TWO = """\
import torch
from diffusers import KandinskyV22PriorPipeline, KandinskyV22Pipeline

prior = KandinskyV22PriorPipeline.from_pretrained("kandinsky-community/kandinsky-2-2-prior", torch_dtype=torch.float16)
prior.to("cuda")
pipe = KandinskyV22Pipeline.from_pretrained("kandinsky-community/kandinsky-2-2-decoder", torch_dtype=torch.float16)
pipe.to("cuda")
embeds, negative_embeds = prior("a red cat", num_inference_steps=2).to_tuple()
image = pipe(image_embeds=embeds, negative_image_embeds=negative_embeds, height=256, width=256, num_inference_steps=2)
"""
COMBINED = f"""\
import torch
from diffusers import AutoPipelineForText2Image

pipe = AutoPipelineForText2Image.from_pretrained("{DECODER}", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a red cat", height=256, width=256, num_inference_steps=2, prior_num_inference_steps=2).images[0]
"""


def test_what_one_pipeline_makes_the_next_one_takes_and_a_combined_one_weighs_the_same() -> None:
    with Doctor(target=target_for(card("rtx-3060"), ram_bytes=64 << 30)) as doctor:
        two, combined = doctor.measure(read_job(TWO)), doctor.measure(read_job(COMBINED))
    assert {c.name for c in two.components} == {"prior", "text_encoder", "image_encoder", "unet", "movq"}
    assert {c.name for c in combined.components} == {
        "prior_prior", "prior_text_encoder", "prior_image_encoder", "unet", "movq",
    }  # fmt: skip
    assert combined.weights_bytes == two.weights_bytes
    assert combined.download_bytes == two.download_bytes
    ran = [(s.stage.value, (s.component or "").removeprefix("prior_")) for s in combined.stages]
    assert ran == [(s.stage.value, s.component) for s in two.stages]
