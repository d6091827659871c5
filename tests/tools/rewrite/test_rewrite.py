"""Whole rewrites: layouts, habits of the script, switching, taking out, and what is left to a person."""

from __future__ import annotations

import ast
from functools import cache

import pytest
from oomdoctor.errors import NoPipeline, NotApplicable
from oomdoctor.rewrite import revert, rewrite
from oomdoctor.values import Patch, Strategy

FLUX = """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat", height=1024, width=1024).images[0]
image.save("cat.png")
"""
LINES_ONLY = (
    "model_offload",
    "group_offload(leaf, stream=true)",
    "group_offload(block, blocks=2)",
    "fp8_casting(transformer)",
    "vae_tiling",
    "model_offload+fp8_casting(transformer)+vae_tiling",
    "group_offload(leaf, stream=true, low_cpu_mem=true)+vae_tiling(size=256)",
    "sequential_offload",
)
"""Strategies that add and take whole lines."""
STRATEGIES = (
    *LINES_ONLY,
    "bnb_nf4(transformer, text_encoder_2)",
    "torchao_int8(transformer)+model_offload",
    "gguf(transformer, file=flux1-dev-Q4_K_S.gguf)",
    "text_encoder_release+fp8_casting(transformer)",
    "device_map(balanced)",
    "context_parallel(cards=2)",
)


@cache
def do(source: str, strategy: str, **versions: str) -> Patch:
    patch = rewrite(source, Strategy.parse(strategy), versions=versions)
    ast.parse(patch.source.removeprefix("\ufeff"))
    return patch


@pytest.mark.parametrize("first", STRATEGIES)
@pytest.mark.parametrize("second", STRATEGIES)
def test_switching_leaves_no_residue(first: str, second: str) -> None:
    assert do(do(FLUX, first).source, second).source == do(FLUX, second).source


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_revert_gives_the_original_back(strategy: str) -> None:
    patched = do(FLUX, strategy).source
    assert patched != FLUX
    assert revert(patched, Strategy.parse(strategy)).source == FLUX


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(lambda s: s, id="plain"),
        pytest.param(lambda s: s.replace("\n", "\r\n"), id="crlf"),
        pytest.param(lambda s: "\ufeff" + s, id="bom"),
        pytest.param(lambda s: "# -*- coding: utf-8 -*-\n" + s, id="cookie"),
        pytest.param(lambda s: s.rstrip("\n"), id="no final newline"),
        pytest.param(lambda s: s.replace("1024, width", "1024,   width") + "\n\n   \n", id="odd blanks"),
        pytest.param(lambda s: s.replace('"', "'"), id="single quotes"),
        pytest.param(lambda s: "def main():\n" + "".join(f"\t{x}" for x in s.splitlines(True)), id="tabs"),
        pytest.param(lambda s: "x = '日本語'; y = '\x0c'\n" + s, id="wide characters"),
    ],
)
def test_layouts_survive(strategy: str, layout: object) -> None:
    source = layout(FLUX)  # type: ignore[operator]
    patch = do(source, strategy)
    assert patch.changed
    newline = "\r\n" if "\r\n" in source else "\n"
    if newline == "\r\n":
        assert patch.source.count("\n") == patch.source.count("\r\n")
    assert patch.source.endswith(("\n", "\r\n")) == source.endswith(("\n", "\r\n"))
    changeable = ["to("] if strategy in LINES_ONLY else ["to(", "import", "from_pretrained", "pipe("]
    for line in source.split(newline):
        if not any(words in line for words in changeable):
            assert line in patch.source.split(newline), "a line that had no reason to change did"
    assert do(patch.source, strategy).diff == ""


@pytest.mark.parametrize("strategy", ["model_offload", "fp8_casting+model_offload+vae_tiling", "group_offload(leaf)"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_script_that_ends_with_the_placement_loses_nothing(strategy: str, newline: str) -> None:
    whole = newline.join(FLUX[: FLUX.index("pipe.to(")].split("\n")) + 'pipe.to("cuda")'
    patch, with_end = do(whole, strategy), do(whole + newline, strategy)
    assert patch.source + newline == with_end.source and ".to(" not in patch.source
    assert patch.source.count("pipe") > whole.count("pipe") - 1
    assert do(patch.source, strategy).diff == ""


def test_plain_changes_nothing() -> None:
    patch = do(FLUX, "plain")
    assert patch.source == FLUX and not patch.changed


def test_placement_goes_wherever_it_is_written() -> None:
    for chain in ('.to("cuda")', ".cuda()", '.to(device="cuda")', '.to("cuda:0")', '.to(torch.device("cuda"))'):
        source = FLUX.replace('pipe.to("cuda")\n', "").replace("bfloat16)", "bfloat16)" + chain)
        patched = do(source, "model_offload").source
        assert chain not in patched
        assert patched.splitlines()[3].endswith("bfloat16)")
        assert patched.splitlines()[4] == "pipe.enable_model_cpu_offload()"


def test_a_chain_over_several_lines() -> None:
    source = FLUX.replace(
        'pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)\npipe.to("cuda")\n',
        'pipe = (\n    FluxPipeline.from_pretrained("x", torch_dtype=torch.bfloat16)  # big\n    .to("cuda")\n)\n',
    )
    patched = do(source, "model_offload").source
    assert '.to("cuda")' not in patched and "# big" in patched
    assert ")\npipe.enable_model_cpu_offload()\n" in patched


def test_dtype_in_the_move_is_kept_for_loading() -> None:
    source = FLUX.replace(", torch_dtype=torch.bfloat16", "").replace('.to("cuda")', '.to("cuda", torch.float16)')
    patched = do(source, "model_offload", diffusers="0.42.1").source
    assert 'from_pretrained("black-forest-labs/FLUX.1-dev", dtype=torch.float16)' in patched
    assert ".to(" not in patched


def test_a_move_that_was_alone_in_its_block_leaves_room_for_offloading() -> None:
    source = FLUX.replace('pipe.to("cuda")', 'if torch.cuda.is_available():\n    pipe.to("cuda")')
    patched = do(source, "model_offload").source
    assert "if torch.cuda.is_available():\n    pipe.enable_model_cpu_offload()\n" in patched


def test_device_decided_at_run_time_is_left_to_a_person() -> None:
    source = FLUX.replace('pipe.to("cuda")', "pipe.to(args.device)").replace(
        "import torch", "import torch\nargs = parse()"
    )
    patch = do(source, "model_offload")
    assert "pipe.to(args.device)" in patch.source
    assert any("pipe.to(args.device)" in words and "6" in words for words in patch.by_hand)


def test_offloading_that_is_there_still_loses_the_move_beside_it() -> None:
    source = FLUX.replace('pipe.to("cuda")\n', 'pipe.to("cuda")\npipe.enable_model_cpu_offload()\n')
    patched = do(source, "model_offload").source
    assert 'to("cuda")' not in patched and patched.count("enable_model_cpu_offload") == 1


def test_torch_under_another_name() -> None:
    source = FLUX.replace("import torch", "import torch as th").replace("torch.bfloat16", "th.bfloat16")
    patched = do(source, "fp8_casting(transformer)").source
    assert "storage_dtype=th.float8_e4m3fn, compute_dtype=th.bfloat16" in patched
    assert "import torch\n" not in patched


def test_taking_out_drops_an_import_it_alone_needed() -> None:
    source = FLUX.replace("import torch\n", "").replace(", torch_dtype=torch.bfloat16", ', torch_dtype="auto"')
    patched = do(source, "group_offload(leaf, stream=true)").source
    assert "import torch\n" in patched
    assert "import torch\n" not in do(patched, "model_offload").source


def test_unused_import_of_the_user_stays() -> None:
    source = "import numpy\n" + FLUX
    assert "import numpy\n" in do(source, "model_offload").source


def test_self_pipe_in_a_class() -> None:
    source = """\
import torch
from diffusers import FluxPipeline


class Painter:
    def __init__(self):
        self.pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")

    def paint(self, prompt):
        return self.pipe(prompt).images[0]
"""
    patched = do(source, "model_offload+vae_tiling").source
    assert "        self.pipe.enable_model_cpu_offload()\n        self.pipe.vae.enable_tiling()\n" in patched


def test_every_reason_stands_on_the_line_it_is_about() -> None:
    patch = do(FLUX, "model_offload+fp8_casting(transformer)+vae_tiling")
    lines = patch.source.splitlines()
    by_technique = {r.technique: lines[r.line - 1] for r in patch.reasons if "No `" not in r.text}
    assert "enable_model_cpu_offload" in by_technique["model_offload"]
    assert "enable_layerwise_casting" in by_technique["fp8_casting"]
    assert "enable_tiling" in by_technique["vae_tiling"]


def test_diff_is_what_changed() -> None:
    diff = do(FLUX, "model_offload").diff
    assert '-pipe.to("cuda")\n' in diff and "+pipe.enable_model_cpu_offload()\n" in diff
    assert sum(line.startswith(("+", "-")) for line in diff.splitlines()) == 4, "two headers, two lines"


def test_no_pipeline_is_an_error_with_a_way_out() -> None:
    with pytest.raises(NoPipeline, match="from_pretrained"):
        do("print('hello')\n", "model_offload")


def test_all_reasons_of_a_refusal_are_named() -> None:
    with pytest.raises(NotApplicable, match="cannot be combined") as refused:
        do(FLUX, "model_offload+group_offload(leaf, low_cpu_mem=true)")
    assert "stream=true" in str(refused.value)
