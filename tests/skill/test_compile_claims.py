"""What the skill says about torch.compile, on tiny random models: a virtual run does not compile, so here it is real.

``backend="eager"`` compiles nothing but captures graphs as every backend does, which is what ``fullgraph`` is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def flux() -> Any:
    torch.manual_seed(0)
    return diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8],
    ).eval()  # fmt: skip


def run(model: Any) -> Any:
    with torch.inference_mode():
        return model(
            hidden_states=torch.ones(1, 16, 4), encoder_hidden_states=torch.ones(1, 8, 32),
            pooled_projections=torch.ones(1, 32), timestep=torch.tensor([0.5]), img_ids=torch.zeros(16, 3),
            txt_ids=torch.zeros(8, 3), return_dict=False,
        )[0]  # fmt: skip


def offloaded(model: Any) -> Any:
    model.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    return model


def cast(model: Any) -> Any:
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    return model


def test_regional_compiling_takes_fullgraph_on_a_plain_model():
    plain = run(flux())
    model = flux()
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    assert torch.allclose(run(model), plain, atol=1e-5)


@pytest.mark.parametrize("change", [offloaded, cast], ids=["group offload", "layerwise casting"])
def test_fullgraph_fails_with_hooks_and_works_without_it(change: Any):
    model = change(flux())
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        run(model)
    torch._dynamo.reset()
    model = change(flux())
    model.compile_repeated_blocks(backend="eager")
    assert run(model).shape == (1, 16, 4)


def test_classes_without_repeated_blocks_refuse_regional_compiling():
    model = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=16, out_channels=4, pos_embed_max_size=16,
    )  # fmt: skip
    assert not getattr(model, "_repeated_blocks", None)
    with pytest.raises(ValueError, match="_repeated_blocks"):
        model.compile_repeated_blocks(backend="eager")


def test_channels_last_shows_in_the_strides_of_a_convolution():
    convolution = torch.nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)
    assert convolution.weight.stride(1) == 1


def test_torchao_sizes_are_wrong_by_numel_and_right_by_the_skills_snippet():
    """The snippet of the memory calculator sums inner tensors; ``numel() * element_size()`` reports the old size."""
    quantization = pytest.importorskip("torchao.quantization")
    import re
    from pathlib import Path

    page = Path(__file__).parents[2] / "skill" / "diffusers-oom-doctor" / "references" / "memory-calculator.md"
    snippet = re.search(r"(def stored.*?)\n\nGIB", page.read_text("utf-8"), re.S)
    assert snippet
    names: dict[str, Any] = {}
    exec(snippet[1], names)  # the skill's own code, as printed
    model = torch.nn.Sequential(torch.nn.Linear(512, 512, bias=False, dtype=torch.bfloat16))
    before = names["weight"](model)
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    claimed = sum(p.numel() * p.element_size() for p in model.parameters())
    assert before == claimed == 512 * 512 * 2
    assert 512 * 512 <= names["weight"](model) < 512 * 512 * 1.1
