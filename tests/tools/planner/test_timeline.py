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
