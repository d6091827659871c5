"""Text encoders that were converted are freed only with the cycles their layers are in."""

from __future__ import annotations

import pytest
from oomdoctor.rewrite import rewrite
from oomdoctor.values import Strategy

PLAIN = """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat", num_inference_steps=28).images[0]
"""
OWN = PLAIN.replace("torch_dtype=torch.bfloat16)", "torch_dtype=torch.bfloat16, quantization_config=config)").replace(
    "pipe = ",
    'config = diffusers.PipelineQuantizationConfig("bitsandbytes_4bit", components_to_quantize=["text_encoder_2"])\npipe = ',
)


@pytest.mark.parametrize(
    ("source", "strategy", "collects"),
    [
        (PLAIN, "text_encoder_release", False),
        (PLAIN, "bnb_nf4(text_encoder_2)+text_encoder_release", True),
        (PLAIN, "torchao_int8(text_encoder_2)+text_encoder_release", True),
        (PLAIN, "bnb_int8(text_encoder_2)+text_encoder_release", False),
        ("import diffusers\n" + OWN, "text_encoder_release", True),
    ],
)
def test_cycles_are_collected_where_there_are_some(source: str, strategy: str, collects: bool) -> None:
    patched = rewrite(source, Strategy.parse(strategy)).source
    assert "text_encoder_2 = None" in patched
    assert ("gc.collect()" in patched) is collects
