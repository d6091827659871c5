"""Scripts that place their pipeline in one of several branches: the patch holds whichever of them runs."""

from __future__ import annotations

import pytest
from oomdoctor.rewrite import revert, rewrite
from oomdoctor.values import Strategy

HEAD = """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
"""
CALL = """\
image = pipe("a cat", height=1024, width=1024).images[0]
"""
EITHER = """\
if args.offload:
    pipe.enable_model_cpu_offload()
else:
    pipe.to("cuda")
"""
CHAIN = """\
if vram < 8:
    pipe.enable_sequential_cpu_offload()
elif vram < 24:
    pipe.enable_model_cpu_offload()
else:
    pipe.to("cuda")
"""
LEAF = 'pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level")\n'


def do(middle: str, strategy: str) -> str:
    source = HEAD + middle + CALL
    patched = rewrite(source, Strategy.parse(strategy)).source
    assert rewrite(patched, Strategy.parse(strategy)).diff == ""
    return patched.removeprefix(HEAD).removesuffix(CALL)


@pytest.mark.parametrize("middle", [EITHER, CHAIN])
@pytest.mark.parametrize(
    "strategy, line",
    [
        ("group_offload(leaf)", LEAF),
        ("model_offload", "pipe.enable_model_cpu_offload()\n"),
        ("compile(regional)", 'pipe.to("cuda")\npipe.transformer.compile_repeated_blocks(fullgraph=True)\n'),
    ],
)
def test_one_line_takes_the_place_of_all_branches(middle: str, strategy: str, line: str) -> None:
    assert do(middle, strategy) == line


def test_what_else_a_branch_does_stays() -> None:
    busy = EITHER.replace("    pipe.to", '    print("full")\n    pipe.to')
    assert do(busy, "group_offload(leaf)") == 'if args.offload:\n    pass\nelse:\n    print("full")\n' + LEAF
    assert do(busy, "model_offload").endswith('print("full")\npipe.enable_model_cpu_offload()\n')


def test_a_condition_that_does_something_is_kept() -> None:
    asked = EITHER.replace("args.offload", "ask_the_person()")
    assert do(asked, "group_offload(leaf)").startswith("if ask_the_person():\n    pass\nelse:\n    pass\n")


def test_the_only_branch_keeps_what_places() -> None:
    only = 'if torch.cuda.is_available():\n    pipe.to("cuda")\n'
    assert do(only, "group_offload(leaf)") == only.replace('pipe.to("cuda")\n', LEAF)
    offloaded = only.replace('pipe.to("cuda")', "pipe.enable_model_cpu_offload()")
    assert do(offloaded, "group_offload(leaf)") == only.replace('pipe.to("cuda")\n', LEAF)
    assert revert(HEAD + offloaded + CALL, Strategy.parse("model_offload")).source == HEAD + only + CALL
    several = do(offloaded, "fp8_casting+group_offload(block)+vae_tiling").splitlines()
    order = [
        next(i for i, row in enumerate(several) if word in row)
        for word in ("casting", "is_avail", "block_level", "tiling")
    ]
    assert order == sorted(order) and several[order[2]].startswith("        ")


def test_a_pipeline_that_is_loaded_in_the_branch_is_placed_there() -> None:
    middle = (
        "if small:\n    pipe = None\nelse:\n    " + HEAD.splitlines()[-1] + "\n    pipe.enable_model_cpu_offload()\n"
    )
    source = "import torch\nfrom diffusers import FluxPipeline\n" + middle + CALL
    assert rewrite(source, Strategy.parse("model_offload")).diff == ""
