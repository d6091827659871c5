"""The common ways to load, place, optimise and call a pipeline."""

from __future__ import annotations

from textwrap import dedent

from oomdoctor.script import read_script
from oomdoctor.values import PipelineUse, Script


def read(text: str) -> Script:
    return read_script(dedent(text))


def main(text: str) -> PipelineUse:
    use = read(text).main
    assert use is not None
    return use


def test_a_whole_flux_script() -> None:
    script = read("""\
        import torch
        from diffusers import FluxPipeline

        pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
        pipe.vae.enable_tiling()
        image = pipe("a cat", height=768, width=2 * 512, num_inference_steps=28).images[0]
    """)
    use = script.main
    assert use is not None
    assert (use.variable, use.class_name, use.loader) == ("pipe", "FluxPipeline", "from_pretrained")
    assert (use.model.value, use.model.certainty) == ("black-forest-labs/FLUX.1-dev", "literal")
    assert (use.dtype.value, use.dtype.text) == ("bfloat16", "torch.bfloat16")
    (placement,) = use.placements
    assert (placement.kind, placement.device.value, placement.chained, placement.target) == ("to", "cuda", True, "pipe")
    assert [o.method for o in use.optimisations] == ["vae.enable_tiling"]
    (call,) = use.calls
    assert {name: known.value for name, known in call.arguments.items()} == {
        "height": 768, "width": 1024, "num_inference_steps": 28,
    }  # fmt: skip
    assert call.positional[0].value == "a cat"
    assert use.uncertain == ()


def test_the_default_dtype_is_float32() -> None:
    use = main("""\
        from diffusers import DiffusionPipeline
        p = DiffusionPipeline.from_pretrained("a/b")
        p.to("cuda")
    """)
    assert (use.dtype.value, use.dtype.certainty) == ("float32", "default")
    assert (use.variable, use.placements[0].chained) == ("p", False)
