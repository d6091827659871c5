"""A sample of what bench/rewriter.py and bench/rewriter_runs.py do in full: the library's own examples, patched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from oomdoctor.errors import NotApplicable
from oomdoctor.values import Strategy

pytestmark = pytest.mark.slow
pytest.importorskip("diffusers")
sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))

import rewriter  # noqa: E402
from docstring_examples import examples  # noqa: E402

STRATEGIES = (
    "dtype(bf16)+fp8_casting+model_offload+vae_tiling", "group_offload(leaf, stream=true)", "bnb_nf4", "torchao_int8",
    "group_offload(block, blocks=2)", "text_encoder_release", "compile(regional)", "modern_api", "device_map(auto)",
    "sdpa_kernel(efficient)", "quanto_int8",
)  # fmt: skip


def test_the_examples_are_found() -> None:
    assert len(examples()) > 250
    assert sum("from_pretrained" in s for s in examples().values()) > 250


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_patched_examples_are_right(strategy: str) -> None:
    legal = 0
    for name, source in list(examples().items())[::15]:
        if rewriter.read_script(source).main is None:
            continue
        try:
            wrong = rewriter.check(source, Strategy.parse(strategy))
        except NotApplicable:
            continue
        legal += 1
        assert wrong is None, f"{name}: {wrong}"
    assert legal, "somewhere it must be possible"


def test_patched_examples_run_on_the_virtual_card(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from cut_catalogue import write
    from oomdoctor.hardware import card
    from oomdoctor.rewrite import rewrite
    from oomdoctor.trial import Zygote
    from rewriter_runs import run, scripts

    (_, source), *_ = scripts(["FluxPipeline"]).values()
    loading = {"catalogue": str(write(tmp_path, 1)), "configs": [], "like": {}, "hf_cache": None}
    with Zygote(None, card("h100-80gb"), loading) as zygote:
        for strategy in (
            "model_offload+vae_tiling",
            "fp8_casting+group_offload(leaf, stream=true)",
            "text_encoder_release",
        ):
            patched = rewrite(source, Strategy.parse(strategy), versions=zygote.versions).source
            verdict, error, trace = run(zygote, patched, 300.0)
            assert verdict == "ok", f"{strategy}: {error}\n{trace}"
