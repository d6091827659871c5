"""Every technique after every other one: nothing of the first is left, and each can be taken out again.

Techniques that are part of how memory is handled give way to the next strategy; the others are the user's own business
and stay, unless they cannot stand beside it.
"""

from __future__ import annotations

from functools import cache

import pytest
from oomdoctor.errors import NotApplicable
from oomdoctor.rewrite import revert, rewrite
from oomdoctor.techniques import all_techniques
from oomdoctor.techniques.catalogue import catalogue
from oomdoctor.values import Strategy

FLUX = """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
prompt = "a cat"  # one of many
images = pipe(prompt, num_images_per_prompt=4, height=1024, width=1024).images
images[0].save("cat.png")
"""
XL = FLUX.replace("FluxPipeline", "StableDiffusionXLPipeline").replace(
    "black-forest-labs/FLUX.1-dev", "stabilityai/stable-diffusion-xl-base-1.0"
)
VIDEO = """\
import torch
from diffusers import WanPipeline
from diffusers.utils import export_to_video

pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", torch_dtype=torch.bfloat16)
pipe.to("cuda")
frames = pipe("a cat", height=480, width=832, num_frames=33).frames[0]
export_to_video(frames, "cat.mp4")
"""
CLASS = """\
import torch
from diffusers import FluxPipeline


class Painter:
    def __init__(self):
        self.pipe = FluxPipeline.from_pretrained(
            "black-forest-labs/FLUX.1-dev",
            torch_dtype=torch.bfloat16,
        )
        self.pipe.to("cuda")

    def paint(self, words):
        return self.pipe(words, num_images_per_prompt=2).images[0]
"""
SCRIPTS = {"flux": FLUX, "sdxl": XL, "video": VIDEO, "class": CLASS}
ONE_WAY = ("dtype", "modern_api")
"""What a script loads instead of another dtype, or under another name, does not say what was there before."""
VERSIONS = {"diffusers": "0.42.1", "torch": "2.13.0", "transformers": "5.23.0", "accelerate": "1.15.0"}


@cache
def written(script: str, strategy: str) -> str | None:
    """The script with the strategy; None where it is not legal or a person has something to do."""
    try:
        patch = rewrite(SCRIPTS[script], Strategy.parse(strategy), versions=VERSIONS)
    except NotApplicable:
        return None
    return None if patch.by_hand else patch.source


@cache
def strategies(script: str) -> dict[str, str]:
    """Technique -> the first of its own ways to be written that changes this script."""
    found: dict[str, str] = {}
    for entry in catalogue():
        words = [f"{entry.name}({o.name})" for o in entry.options if o.kind == "word"]
        for text in (entry.name, *words, *(w for w in entry.written if "+" not in w)):
            if written(script, text) not in (None, SCRIPTS[script]):
                found[entry.name] = text
                break
    return found


def test_nearly_every_technique_is_tried_somewhere() -> None:
    tried = {name for script in SCRIPTS for name in strategies(script)}
    cannot = {
        "low_ram_loading", "sigmas_on_cpu", "modern_api", "fused_attention", "dtype", "expandable_segments",
        "forward_chunking", "vae_framewise", "tf32", "gguf", "fewer_steps", "context_parallel",
    }  # fmt: skip
    """Nothing to do in these scripts, written for the person, or in need of a file; their own examples show them."""
    assert set(all_techniques()) - tried <= cannot


@pytest.mark.parametrize("script", list(SCRIPTS))
def test_it_is_taken_out_again(script: str) -> None:
    for name, text in strategies(script).items():
        if name in ONE_WAY:
            continue
        source = written(script, text)
        assert source is not None
        back = revert(source, Strategy.parse(name), versions=VERSIONS).source
        assert back == SCRIPTS[script], f"{text} leaves something"


def in_order(source: str | None) -> list[str]:
    """The lines, imports first and sorted: where a new one stands depends on those that are there."""
    rows = (source or "").splitlines()
    imports = [row for row in rows if row.startswith(("import ", "from "))]
    return [*sorted(imports), *(row for row in rows if row not in imports)]


@pytest.mark.parametrize("script", ["flux", "video", "class"])
def test_nothing_is_left_of_the_first(script: str) -> None:
    known = all_techniques()
    wrong = []
    for first, one in strategies(script).items():
        before = written(script, one)
        assert before is not None
        for second, two in strategies(script).items():
            if first == second:
                continue
            wanted = written(script, two)
            if not known[first].settles:  # the user's own business: it stays where both can stand
                wanted = written(script, f"{one}+{two}") or wanted
            try:
                patch = rewrite(before, Strategy.parse(two), versions=VERSIONS)
            except NotApplicable as reason:
                if "kernels compute in bf16" not in str(reason):  # the dtype that the first one set stays
                    wrong.append(f"{one} -> {two}: {reason}")
                continue
            if in_order(patch.source) != in_order(wanted):
                wrong.append(f"{one} -> {two}:\n{patch.source}\ninstead of\n{wanted}")
    assert not wrong, f"{len(wrong)} pairs\n" + "\n".join(wrong[:4])
