"""What quantised weights need around them, and where the pipelines themselves do not bear them."""

from __future__ import annotations

import pytest
from oomdoctor.errors import NotApplicable
from oomdoctor.rewrite import revert, rewrite
from oomdoctor.values import Strategy

LOAD = "import torch\nfrom diffusers import {0}\n\npipe = {0}.from_pretrained('a/b', torch_dtype=torch.bfloat16)\n"
CALL = "image = pipe('a cat').images[0]\n"


def do(source: str, strategy: str) -> str:
    patched = rewrite(source, Strategy.parse(strategy)).source
    assert rewrite(patched, Strategy.parse(strategy)).diff == ""
    return patched


def test_what_is_not_quantised_follows_to_the_card() -> None:
    """bitsandbytes leaves its weights on the card; a script that stays on the CPU would mix both."""
    source = LOAD.format("FluxPipeline") + CALL
    assert do(source, "bnb_nf4").count("pipe.to('cuda')") == 1
    assert "pipe.to" not in do(source, "bnb_nf4+model_offload")
    assert "pipe.to" not in do(source, "torchao_int8"), "converted on the host"
    placed = source.replace(CALL, "pipe.to(device)\n" + CALL)
    assert do(placed, "bnb_int8").count("pipe.to(") == 1


def test_without_a_dtype_one_part_alone_would_be_16_bits() -> None:
    plain = (LOAD.format("FluxPipeline") + CALL).replace(", torch_dtype=torch.bfloat16", "")
    for strategy in ("bnb_nf4", "torchao_int8+model_offload"):
        with pytest.raises(NotApplicable, match=r"ask for dtype\(bf16\) as well"):
            do(plain, strategy)
        assert "torch.bfloat16" in do(plain, "dtype(bf16)+" + strategy)
    assert "QuantoConfig" in do(plain, "quanto_int8"), "stays float32 as a whole"


@pytest.mark.parametrize("strategy", ["fp8_casting(prior)", "bnb_nf4(prior)", "quanto_int8(prior)"])
def test_a_pipeline_that_reads_the_dtype_of_stored_weights(strategy: str) -> None:
    with pytest.raises(NotApplicable, match="makes tensors in the dtype of the prior's weights"):
        do(LOAD.format("StableCascadePriorPipeline") + CALL, strategy)


def test_lists_of_lists_are_not_taken_apart() -> None:
    with pytest.raises(NotApplicable, match="no list of blocks"):
        do(LOAD.format("StableCascadePriorPipeline") + CALL, "group_offload(block)")


def test_a_negative_prompt_that_the_call_fills_in_is_switched_off() -> None:
    for words in ("'a cat'", "prompt='a cat'", "prompt='a cat', negative_prompt='bad'"):
        source = LOAD.format("SanaPipeline") + "pipe.to('cuda')\n" + CALL.replace("'a cat'", words)
        patched = do(source, "text_encoder_release")
        assert patched.splitlines()[-1].count("negative_prompt=None") == 1
        assert "negative_prompt=None" not in revert(patched, Strategy.parse("text_encoder_release")).source
    flux = LOAD.format("FluxPipeline") + "pipe.to('cuda')\n" + CALL
    assert "negative_prompt" not in do(flux, "text_encoder_release")
