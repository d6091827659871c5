"""Pipelines that a script keeps on objects of other libraries: web applications, session states."""

from __future__ import annotations

from textwrap import dedent

import pytest
from oomdoctor.script import read_script
from oomdoctor.values import PipelineUse

HEAD = "import torch\nfrom diffusers import FluxPipeline\n"


def main(text: str) -> PipelineUse:
    use = read_script(HEAD + dedent(text)).main
    assert use is not None
    return use


@pytest.mark.parametrize("name", ["app.pipe", "app.state.pipe", "st.session_state.pipe", "holder.a.b.pipe"])
@pytest.mark.parametrize("made", ["from fastapi import FastAPI\napp = FastAPI()", "import streamlit as st", ""])
def test_attributes_of_objects_that_are_not_ours(name: str, made: str) -> None:
    use = main(f"""
{made}
{name} = FluxPipeline.from_pretrained("a/b")
{name}.to("cuda")
{name}.enable_model_cpu_offload()
def draw(prompt):
    return {name}(prompt, height=512).images[0]
""")
    assert use.variable == name
    assert len(use.placements) == len(use.optimisations) == len(use.calls) == 1


def test_what_a_function_keeps_on_its_argument_is_known_elsewhere_by_the_same_words() -> None:
    use = main("""
        async def lifespan(app):
            app.state.pipe = FluxPipeline.from_pretrained("a/b").to("cuda")
            yield
        app = FastAPI(lifespan=lifespan)
        @app.get("/draw")
        def draw(prompt: str):
            return app.state.pipe(prompt, height=768).images[0]
    """)
    assert [c.arguments["height"].value for c in use.calls] == [768] and len(use.placements) == 1


def test_other_attributes_of_that_object_are_still_unknown() -> None:
    use = main("""
        app.state.pipe = FluxPipeline.from_pretrained("a/b")
        app.state.other.enable_model_cpu_offload()
        app.state.pipe = None
        other.state.pipe.enable_vae_tiling()
    """)
    assert not use.optimisations
