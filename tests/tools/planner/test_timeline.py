"""The row-by-row walk and the fast fold are two ways to the same peak."""

from __future__ import annotations

from pathlib import Path

import pytest
from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.scenario import scenario_of
from oomdoctor.planner.timeline import draw, timeline
from oomdoctor.techniques.effects import Place, Release, Store
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
    assert points[-1].seconds == pytest.approx(figures.compute)


def test_a_picture_is_written(flux, card, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    evaluator = Evaluator(flux, card)
    target = tmp_path / "memory.png"
    draw(timeline(evaluator, scenario_of([Place("*", "component")])), target, "model offload", 24 << 30)
    assert target.read_bytes().startswith(b"\x89PNG")
