"""The recorded facts about diffusers' classes, held against the installed library."""

from __future__ import annotations

import pytest
from oomdoctor.techniques.facts import model_facts, pipeline_facts, recorded_version


def test_families_that_the_traps_are_about() -> None:
    flux, wan = pipeline_facts("FluxPipeline"), model_facts("AutoencoderKLWan")
    assert flux is not None and flux.denoisers == ("transformer",)
    assert flux.text_encoders == ("text_encoder", "text_encoder_2")
    assert wan is not None and wan.vae is not None and wan.vae.tiling and wan.vae.tile == 256
    sd = model_facts("AutoencoderKL")
    assert sd is not None and sd.vae is not None and sd.vae.tile_attributes and sd.vae.block_decode
    cog = model_facts("AutoencoderKLCogVideoX")
    assert cog is not None and cog.vae is not None and not cog.vae.block_decode
    sd3 = model_facts("SD3Transformer2DModel")
    assert sd3 is not None and not sd3.repeated_blocks


def test_unknown_classes_are_unknown() -> None:
    assert pipeline_facts("MyOwnPipeline") is None
    assert pipeline_facts(None) is None
    assert model_facts("T5EncoderModel") is None, "transformers' classes are not diffusers' models"


@pytest.mark.slow
def test_recorded_facts_equal_the_installed_library() -> None:
    diffusers = pytest.importorskip("diffusers")
    if diffusers.__version__ != recorded_version():
        pytest.skip(f"facts are of {recorded_version()}, installed is {diffusers.__version__}")
    import json
    from importlib.resources import files

    from oomdoctor.techniques.facts.collect import as_json, collect

    recorded = json.loads(files("oomdoctor.techniques.facts").joinpath("diffusers.json").read_text())
    found = json.loads(as_json(collect()))
    for kind in ("models", "pipelines"):
        for name, facts in found[kind].items():
            assert recorded[kind].get(name) == facts, name
