"""Types of weights in GGUF files that only their name tells about."""

from __future__ import annotations

import pytest
from oomdoctor.loading.quantised.gguf_mix import base_type, type_of_weight

Q, DOWN = "layers.0.attention.to_q.weight", "layers.0.feed_forward.w2.weight"


@pytest.mark.parametrize(
    ("file_type", "cls", "name", "expected"),
    [
        ("Q4_K_M", "ZImageTransformer2DModel", Q, "Q5_K"),
        ("Q4_K_M", "ZImageTransformer2DModel", DOWN, "Q6_K"),
        ("Q4_K_M", "ZImageTransformer2DModel", "layers.0.feed_forward.w1.weight", "Q4_K"),
        ("Q8_0", "ZImageTransformer2DModel", "noise_refiner.0.attention.to_q.weight", "BF16"),
        ("Q4_K_S", "FluxTransformer2DModel", "transformer_blocks.0.ff.net.2.weight", "Q4_K"),
        ("Q5_K_M", "FluxTransformer2DModel", "transformer_blocks.0.attn.add_k_proj.weight", "Q6_K"),
        ("Q8_0", "FluxTransformer2DModel", "context_embedder.weight", "BF16"),
        ("Q4_K_M", "WanTransformer3DModel", "blocks.0.attn1.to_v.weight", "Q6_K"),
        ("Q4_K_M", "WanTransformer3DModel", "blocks.0.attn1.to_k.weight", "Q4_K"),
        ("Q4_0", "WanTransformer3DModel", "blocks.0.ffn.net.2.weight", "Q4_1"),
        ("Q3_K_L", "NobodyKnowsThis", "blocks.0.to_v.weight", "Q5_K"),
        ("Q4_K_M", "LTX2VideoTransformer3DModel", "transformer_blocks.0.scale_shift_table", "F32"),
        ("Q8_0", "NobodyKnowsThis", "blocks.0.to_v.weight", "Q8_0"),
    ],
)
def test_types_follow_the_converter(file_type: str, cls: str, name: str, expected: str) -> None:
    assert type_of_weight(file_type, cls, name, (3840, 3840)) == expected


def test_rows_that_blocks_do_not_divide_stay_in_half_precision() -> None:
    assert type_of_weight("Q4_K_M", "ZImageTransformer2DModel", Q, (3840, 100)) == "F16"


def test_the_size_letter_is_no_part_of_the_type() -> None:
    assert [base_type(t) for t in ("Q4_K_M", "IQ2_XXS", "Q8_0", "BF16")] == ["Q4_K", "IQ2_XXS", "Q8_0", "BF16"]


def test_a_whole_model_weighs_what_its_file_does() -> None:
    """The published peak of Z-Image with its Q4_K_M file, weights on the card, leaves 4.64 GiB to them."""
    torch = pytest.importorskip("torch")
    gguf = pytest.importorskip("gguf")
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        model = diffusers.ZImageTransformer2DModel()
    total = 0
    for name, weight in model.named_parameters():
        chosen = "F32"
        if weight.dim() == 2 and weight.numel() > 1 << 15:
            chosen = type_of_weight("Q4_K_M", type(model).__name__, name, tuple(weight.shape))
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[chosen]]
        total += weight.numel() // block * size
    assert total / 2**30 == pytest.approx(4.64, abs=0.01)
