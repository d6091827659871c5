"""The row-by-row walk and the fast fold are two ways to the same peak."""

from __future__ import annotations

from pathlib import Path

import pytest
from oomdoctor.errors import InputError
from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.picture import check, draw
from oomdoctor.planner.scenario import scenario_of
from oomdoctor.planner.timeline import timeline
from oomdoctor.techniques.effects import Place, Release, Store, TileVae
from oomdoctor.values import Stage

PLACES = (
    (),
    (Place("*", "component"),),
    (Place("*", "leaf"),),
    (Place("*", "block", 1),),
    (Place("*", "block", 3),),
    (Place("*", "leaf"), Place("transformer", "block", 2)),
    (Place("vae", "leaf"), Place("transformer", "component")),
    (Release("text_encoder_2", Stage.TEXT_ENCODE),),
    (Release("text_encoder_2", Stage.TEXT_ENCODE), Store("*", "bf16")),
    (Place("*", "leaf", stream=True, host="pinned", writes_back=False),),
    (Place("*", "block", 1, stream=True, host="pinned", writes_back=False),),
    (Place("*", "component"), Store("transformer", "fp8", respects_skip_patterns=True, compute_dtype="bf16")),
    (Place("*", "leaf"), Store("transformer", "nf4", linear_only=True, compute_dtype="bf16")),
    (Place("*", "block", 2), Store("transformer", "nf4", linear_only=True, compute_dtype="bf16")),
    (Place("transformer", "resident", after_stage=Stage.TEXT_ENCODE), Release("text_encoder_2", Stage.TEXT_ENCODE)),
    (Place("*", "leaf"), TileVae(512)),
)


@pytest.mark.parametrize("effects", PLACES, ids=range(len(PLACES)))
def test_the_walk_and_the_fold_agree(flux, card, effects) -> None:
    evaluator = Evaluator(flux, card)
    scenario = scenario_of(effects)
    points = timeline(evaluator, scenario)
    figures = evaluator.fold(scenario)
    assert max(p.allocated for p in points) == figures.allocated
    for stage in {p.stage for p in points}:
        highest = max(p.allocated for p in points if p.stage == stage)
        assert figures.stages[stage].allocated == highest
    assert points[-1].seconds == pytest.approx(figures.seconds)


def test_a_picture_is_written(flux, card, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    evaluator = Evaluator(flux, card)
    target = tmp_path / "memory.png"
    scenario = scenario_of([Place("*", "component")])
    check(target)
    draw(timeline(evaluator, scenario), target, "model offload", figures=evaluator.fold(scenario),
         context_bytes=card.context_bytes, capacity=24 << 30)  # fmt: skip
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["memory.gif", "nowhere/memory.png"])
def test_a_picture_that_cannot_be_written_is_refused_first(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="png|folder"):
        check(tmp_path / name)


def in_portions(measurement, times):
    """The same with the VAE gone through several times, as video models decode."""
    trace = measurement.trace
    start = next(i for i, m in enumerate(trace.module) if trace.modules[m].component == "vae")

    def longer(column):
        return (*column, *(column[start:] * (times - 1)))

    columns = ("module", "entered", "stage", "live_bytes", "peak_bytes", "seconds", "repeats")
    update = {name: longer(getattr(trace, name)) for name in columns}
    return measurement.model_copy(update={"trace": trace.model_copy(update=update)})


@pytest.mark.parametrize("effects", [(), (Place("*", "leaf"), TileVae(256))])
def test_a_video_that_is_decoded_in_portions_is_walked(flux, card, effects) -> None:
    evaluator = Evaluator(in_portions(flux, 5), card)
    scenario = scenario_of(effects)
    points = timeline(evaluator, scenario)
    assert max(p.allocated for p in points) == pytest.approx(evaluator.fold(scenario).allocated, rel=1e-6)


def test_frames_do_not_add_to_the_vae_where_it_works_in_portions(flux, card) -> None:
    from dataclasses import replace

    from oomdoctor.planner.scenario import Scale

    def peak(measurement, frames):
        call = {**measurement.call, "num_frames": 49}
        evaluator = Evaluator(measurement.model_copy(update={"call": call}), card)
        scenario = replace(scenario_of((Place("*", "leaf"),)), scale=Scale(frames=frames))
        return evaluator.fold(scenario).stages[Stage.VAE_DECODE].allocated

    whole, portions = peak(flux, 4.0), peak(in_portions(flux, 5), 4.0)
    assert whole > 3.5 * peak(flux, 1.0)
    assert portions < 2 * peak(in_portions(flux, 5), 1.0)
