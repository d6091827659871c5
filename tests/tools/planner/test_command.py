"""``oom-doctor strategies``: the questions a person may ask, as text and as JSON; the measurement is made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oomdoctor import cli
from oomdoctor.doctor import Doctor
from oomdoctor.job import Job
from oomdoctor.values import Measurement, Plan, Trial

SCRIPT = """
import torch
from diffusers import FluxPipeline
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat", height=1024, width=1024, num_inference_steps=28).images[0]
"""
GIB = 1 << 30
Ask = Callable[..., tuple[int, Plan]]


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "gen.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch, flux: Measurement) -> None:
    monkeypatch.setattr(Doctor, "measure", lambda self, job: flux)


@pytest.fixture
def ask(script: str, capsys: pytest.CaptureFixture[str]) -> Ask:
    def asked(*options: str) -> tuple[int, Plan]:
        status = cli.main(["strategies", script, "--gpu=rtx-3060-12gb", "--ram=64", "--json", *options])
        return status, Plan.model_validate(json.loads(capsys.readouterr().out))

    return asked


def test_what_was_not_asked_for_is_not_answered(ask: Ask) -> None:
    status, plan = ask()
    assert status == 0 and plan.strategies
    assert not (plan.pareto or plan.formulas or plan.largest or plan.smallest_card or plan.subject or plan.illegal)


def test_top_says_how_many(ask: Ask) -> None:
    assert len(ask("--top=2")[1].strategies) == 2


def test_the_front_holds_what_nothing_beats(ask: Ask) -> None:
    front = ask("--pareto")[1].pareto

    def figures(option: Any) -> tuple[float, ...]:
        e = option.estimate
        return e.least_vram_bytes, e.seconds, e.quality.rank, e.ram_bytes

    assert len(front) > 3
    for a in front:
        for b in front:
            assert a is b or not all(x <= y for x, y in zip(figures(a), figures(b), strict=True)), (a.id, b.id)


def test_the_largest_job_is_about_the_strategy_that_is_named(ask: Ask) -> None:
    few = ask("--largest", "--strategy=group_offload(leaf)")[1]
    many = ask("--largest", "--strategy=group_offload(leaf)+vae_tiling(size=512)")[1]
    assert few.subject is not None and few.subject.id == "group_offload(leaf)"
    a, b = (next(j for j in p.largest if j.dimension == "resolution") for p in (few, many))
    assert (b.height or 0) > (a.height or 0) > 1024


def test_a_strategy_that_does_not_fit_is_priced_all_the_same(ask: Ask) -> None:
    status, plan = ask("--strategy=model_offload", "--largest")
    assert status == 0
    assert plan.subject is not None and plan.subject.estimate.fits is False
    assert not plan.largest and any("not even the smallest" in n for n in plan.notes)


def test_the_smallest_card_for_the_script_as_it_is_and_for_a_strategy(ask: Ask, flux: Measurement) -> None:
    plain = ask("--smallest-card")[1].smallest_card
    light = ask("--smallest-card", "--strategy=group_offload(leaf)")[1].smallest_card
    assert plain is not None and plain.bytes > flux.weights_bytes and (plain.total_bytes or 0) >= plain.bytes
    assert light is not None and light.bytes < plain.bytes and (light.total_bytes or 0) < (plain.total_bytes or 0)


def test_formulas_name_every_symbol(ask: Ask) -> None:
    symbols = {f.symbol for f in ask("--formulas")[1].formulas}
    assert {"S_total", "S_max", "S_block", "S_leaf", "A", "S_total + A", "2 S_leaf + A"} <= symbols


def test_the_picture_is_a_png(ask: Ask, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ask(f"--draw={tmp_path / 'm.png'}", "--strategy=model_offload")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--top=0"], "one strategy or more"),
        (["--prove=-1"], "0 or more"),
        (["--draw=memory.jpg"], ".png"),
        (["--strategy=magic"], "magic"),
        (["--strategy=sequential_offload+model_offload"], "combined"),
        (["--gpu-count=0"], "1 to"),
    ],
)
def test_bad_questions_are_refused_with_a_way_out(script: str, capsys: Any, options: list[str], words: str) -> None:
    assert cli.main(["strategies", script, "--gpu=rtx-3060-12gb", "--ram=64", *options]) == 2
    assert words in capsys.readouterr().err


def test_several_cards_are_shown_with_the_warning(ask: Ask, script: str, capsys: Any) -> None:
    plan = ask("--gpu-count=2")[1]
    assert {"balanced", "auto", "context"} <= {s.kind for s in plan.spreadings}
    assert any("not one of 24" in n for n in plan.notes)
    cli.main(["strategies", script, "--gpu=rtx-3060-12gb", "--ram=64", "--gpu-count=2"])
    assert "torchrun --nproc-per-node 2" in capsys.readouterr().out


def test_the_text_has_every_answer(script: str, capsys: Any) -> None:
    questions = ["--pareto", "--formulas", "--largest", "--smallest-card", "--detail"]
    assert cli.main(["strategies", script, "--gpu=rtx-3060-12gb", "--ram=64", *questions]) == 0
    text = capsys.readouterr().out
    for words in ("offloading / casting", "Pareto front", "largest resolution", "Smallest card", "S_unmatched",
                  "popular sum", "not here: device_map"):  # fmt: skip
        assert words in text, words


def test_what_was_run_is_marked_and_what_died_is_left_out(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [o.id for o in ask("--top=3")[1].strategies]
    ran: list[str] = []

    def prove(self: Doctor, job: Job, source: str | None = None, **rest: Any) -> Trial:
        ran.append(source or "")
        return Trial(
            device="virtual:x", ran="script", isolation="guards", outcome="oom" if len(ran) == 1 else "ok",
            peak_allocated_bytes=5 * GIB, peak_reserved_bytes=6 * GIB, context_bytes=GIB // 4, usable_bytes=11 * GIB,
            peak_host_bytes=20 * GIB, peak_pinned_bytes=0, seconds=9.0,
        )  # fmt: skip

    monkeypatch.setattr(Doctor, "prove", prove)
    plan = ask("--top=3", "--prove=2")[1]
    assert [o.id for o in plan.strategies] == ids[1:]
    assert [o.proof for o in plan.strategies] == ["simulated", "estimated"]
    assert plan.strategies[0].estimate.vram_bytes == 6 * GIB + GIB // 4
    assert any(ids[0] in n and "oom" in n for n in plan.notes) and len(ran) == 2 and all(r != SCRIPT for r in ran)


def test_ways_to_use_several_cards_are_run_where_that_can_be_done(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything shown says what it rests on; context parallel takes processes that a virtual run does not have."""
    assert {s.proof for s in ask("--gpu-count=2")[1].spreadings} == {"estimated"}

    def prove(self: Doctor, job: Job, source: str | None = None, **rest: Any) -> Trial:
        dies = 'device_map="balanced"' in (source or "")
        return Trial(
            device="virtual:x", ran="script", isolation="guards", outcome="oom" if dies else "ok",
            peak_allocated_bytes=5 * GIB, peak_reserved_bytes=6 * GIB, context_bytes=GIB // 4, usable_bytes=11 * GIB,
            peak_host_bytes=20 * GIB, peak_pinned_bytes=0, seconds=9.0,
        )  # fmt: skip

    monkeypatch.setattr(Doctor, "prove", prove)
    found = {s.kind: s for s in ask("--gpu-count=2", "--prove=1")[1].spreadings}
    assert found["context"].proof == "estimated" and any("processes" in n for n in found["context"].notes)
    assert found["auto"].proof == "simulated" and found["auto"].fits
    assert found["auto"].vram_bytes == 6 * GIB + GIB // 4
    assert found["balanced"].proof == "simulated" and not found["balanced"].fits


def test_measure_of_a_model_id_without_the_option_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["measure", "Qwen/Qwen-Image"]) != 0
    assert "--model Qwen/Qwen-Image" in capsys.readouterr().err
    assert cli.main(["measure", "scripts/absent.py"]) != 0
    assert "--model" not in capsys.readouterr().err
