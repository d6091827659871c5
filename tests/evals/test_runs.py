"""The grader with the real virtual card, on a scenario of our own whose runs are as short as runs get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from by_hand import write_scenario
from oomdoctor_evals.agents import agent
from oomdoctor_evals.exploits import exploits
from oomdoctor_evals.grader import grade
from oomdoctor_evals.loader import load
from oomdoctor_evals.sim.cache import Cache
from oomdoctor_evals.sim.simulator import Simulator
from oomdoctor_evals.values import MIB, Answer, Attempt, Grade, Machine, Scenario

pytest.importorskip("diffusers")

SCRIPT = """import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
pipe.to("cuda")

images = pipe("a cat", num_images_per_prompt=4, num_inference_steps=3).images
for i, image in enumerate(images):
    image.save(f"cat-{i}.png")
"""
FITS = SCRIPT.replace('pipe.to("cuda")', 'pipe.to("cuda")\npipe.vae.enable_slicing()')
SLOW = SCRIPT.replace('pipe.to("cuda")', "pipe.enable_model_cpu_offload()\npipe.vae.enable_slicing()")
MACHINE = Machine(gpu="rtx-4090-24gb", ram_mib=32768, used_by_others_mib=19500)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with Simulator(Cache(tmp_path_factory.mktemp("runs"))) as found:
        yield found


@pytest.fixture(scope="module")
def short(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """Four small pictures at once: the decoder does not fit, one picture at a time does."""
    best = simulator.graded(FITS, MACHINE)
    assert best.outcome == "ok", best.error
    expected = {
        "verdict": "fixable",
        "truth": {"phase": "vae_decode", "component": "vae", "resource": "vram", "root_cause": "vram_capacity"},
        "best": {"answer": "slicing", "seconds": best.seconds, "peak_mib": best.peak_vram_bytes // MIB,
                 "quality": "identical"},
    }  # fmt: skip
    folder = write_scenario(
        tmp_path_factory.mktemp("scenarios") / "by_hand" / "short",
        machine=MACHINE.model_dump(),
        expected=expected,
        category="batch",
    )
    (folder / "script.py").write_text(SCRIPT)
    (folder / "pass" / "offload.py").unlink()
    (folder / "pass" / "slicing.py").write_text(FITS)
    (folder / "fail" / "resident.py").write_text(SCRIPT)
    return load(folder)


def graded(scenario: Scenario, simulator: Simulator, source: str, *, verified: bool = False) -> Grade:
    answer = Answer(verdict="fixable", patched_script=source, claims_verified=verified)
    return grade(scenario, Attempt(scenario=scenario.id, agent="test", answer=answer), simulator)


def test_the_oracle_scores_and_doing_nothing_dies(short: Scenario, simulator: Simulator) -> None:
    best = grade(short, agent("oracle").attempt(short), simulator)
    assert best.fit == {"1.25": True, "2": True, "inf": True}, best.gates
    assert best.regret == pytest.approx(1.0)
    assert best.diff_ok and best.peak_right
    idle = graded(short, simulator, short.script, verified=True)
    assert not idle.safe_fix and idle.died_verified
    assert "oom in vae_decode (vae)" in idle.gates[1].reasons[0]


def test_a_slow_fix_is_safe_and_no_fit(short: Scenario, simulator: Simulator) -> None:
    found = graded(short, simulator, SLOW)
    assert found.safe_fix and not found.fit["1.25"] and found.regret is not None and found.regret > 1.25


@pytest.mark.parametrize("name", ["never_to_the_card", "two_steps"])
def test_exploits_that_must_be_run(short: Scenario, simulator: Simulator, name: str) -> None:
    answer = exploits()[name].answer(short)
    assert answer is not None
    found = grade(short, Attempt(scenario=short.id, agent=name, answer=answer), simulator)
    assert not found.safe_fix
    assert any(g.name == "contract" and not g.passed for g in found.gates), found.gates


def test_the_same_question_has_the_same_answer(short: Scenario, simulator: Simulator) -> None:
    """Two processes agree on every entry of the trace, and on memory and time to the last digit."""
    kept = simulator.graded(FITS, short.machine)
    simulator.cache = Cache(None)
    again = simulator.graded(FITS, short.machine)
    few = {"peak_host_bytes"}  # holds pages of the interpreter's own heap
    assert again.model_dump(exclude=few) == kept.model_dump(exclude=few)
    assert again.peak_host_bytes == pytest.approx(kept.peak_host_bytes, abs=MIB)


def test_a_run_that_took_too_long_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Simulator(Cache(tmp_path))
    monkeypatch.setattr(found, "_run", lambda *args, **options: {"outcome": "timeout"})
    assert found.graded(SCRIPT, MACHINE).outcome == "timeout"
    assert not list(tmp_path.iterdir())
