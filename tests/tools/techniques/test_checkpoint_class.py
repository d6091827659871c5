"""Where the checkpoint decides the class, the catalogue tells it."""

from __future__ import annotations

import pytest
from oomdoctor.rewrite import rewrite
from oomdoctor.techniques.context import checkpoint_class
from oomdoctor.values import Strategy

SCRIPT = """\
import torch
from diffusers import {0}

pipe = {0}.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat").images[0]
"""


@pytest.mark.parametrize("written", ["DiffusionPipeline", "AutoPipelineForText2Image"])
def test_blocks_of_a_pipeline_that_the_checkpoint_names(written: str) -> None:
    patch = rewrite(SCRIPT.format(written), Strategy.parse("group_offload(block, stream=true, blocks=1)"))
    assert 'offload_type="block_level"' in patch.source
    assert "pipe.transformer" in patch.source


@pytest.mark.parametrize("model", ["nobody/knows-this", None, 3, "."])
def test_what_is_not_in_the_catalogue_stays_unknown(model: object) -> None:
    assert checkpoint_class(model) is None
