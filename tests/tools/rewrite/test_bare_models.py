"""Scripts that load a model without a pipeline and write the loop themselves."""

from __future__ import annotations

import pytest
from oomdoctor.errors import NotApplicable
from oomdoctor.rewrite import revert, rewrite
from oomdoctor.values import Strategy

UNET = """\
import torch
from diffusers import UNet2DConditionModel

unet = UNet2DConditionModel.from_pretrained("my/model", subfolder="unet", torch_dtype=torch.float16)
unet.to("cuda")
with torch.no_grad():
    noise = unet(latents, 999, encoder_hidden_states=embeds).sample
"""
VERSIONS = {"diffusers": "0.42.1", "torch": "2.13.0", "transformers": "5.23.0", "accelerate": "1.15.0"}


@pytest.mark.parametrize(
    "strategy, line",
    [
        ("compile(full)", "unet.compile(fullgraph=True)"),
        ("compile(regional)", "unet.compile_repeated_blocks(fullgraph=True)"),
        (
            "fp8_casting",
            "unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float16)",
        ),
        (
            "group_offload(leaf)",
            'unet.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level")',
        ),
        ("group_offload(block, blocks=2)", '    offload_type="block_level",'),
        ("torchao_int8", "quantization_config=TorchAoConfig(Int8WeightOnlyConfig())"),
        ("bnb_int8", "quantization_config=BitsAndBytesConfig(load_in_8bit=True)"),
        ("quanto_int8", 'quantization_config=QuantoConfig(weights_dtype="int8")'),
        ("channels_last", "unet.to(memory_format=torch.channels_last)"),
        ("fuse_qkv", "unet.fuse_qkv_projections()"),
        ("sdpa_kernel", "    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):"),
        ("device_map(auto)", 'torch_dtype=torch.float16, device_map="auto")'),
        (
            "torchao_dynamic",
            "    filter_fn=lambda module, name: isinstance(module, torch.nn.Linear) and module.in_features >= 512,",
        ),
    ],
)
def test_it_is_written_for_the_model_itself(strategy: str, line: str) -> None:
    patch = rewrite(UNET, Strategy.parse(strategy), versions=VERSIONS)
    assert line in patch.source and not patch.by_hand
    assert ("return_dict=False)[0]" in patch.source) == strategy.startswith("compile"), "a full graph returns a tuple"
    assert rewrite(patch.source, Strategy.parse(strategy), versions=VERSIONS).diff == ""
    back = revert(patch.source, Strategy.parse(strategy), versions=VERSIONS).source
    assert back == UNET or strategy.startswith("compile"), "the tuple stays: it does no harm"


@pytest.mark.parametrize(
    "strategy",
    ["model_offload", "device_map(balanced)", "text_encoder_release", "group_offload(leaf, disk=true)", "vae_tiling"],
)
def test_what_only_a_pipeline_has_is_refused(strategy: str) -> None:
    with pytest.raises(NotApplicable):
        rewrite(UNET, Strategy.parse(strategy), versions=VERSIONS)
