"""The largest job, the smallest card, and what several cards give."""

from __future__ import annotations

import pytest
from oomdoctor.planner import compute_strategies
from oomdoctor.planner.balance import balanced, sharings
from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.fit import shortfalls
from oomdoctor.planner.inverse import card_bytes, fits_at, largest_jobs, smallest_card
from oomdoctor.planner.multi_gpu import VRAM_DOES_NOT_ADD_UP, spreadings
from oomdoctor.planner.scenario import Scale, scenario_of
from oomdoctor.techniques.effects import MultiGpu, Place, TileVae
from oomdoctor.units import GIB
from oomdoctor.values import Stage

OFFLOAD = (Place("*", "component"),)


def test_the_largest_picture_fits_and_the_next_does_not(flux, target_of) -> None:
    target = target_of(26, 64)
    evaluator = Evaluator(flux, target.card)
    job = next(j for j in largest_jobs(evaluator, OFFLOAD, target) if j.dimension == "resolution")
    assert job.height == job.width and job.height % 32 == 0
    scenario = scenario_of(OFFLOAD)
    assert fits_at(evaluator, scenario, Scale(pixels=(job.height / 1024) ** 2), target)
    assert not fits_at(evaluator, scenario, Scale(pixels=((job.height + 32) / 1024) ** 2), target)


def test_tiling_allows_a_larger_picture(flux, target_of) -> None:
    target = target_of(12, 64)
    evaluator = Evaluator(flux, target.card)
    leaf = (Place("*", "leaf"),)
    plain, tiled = (
        next(j for j in largest_jobs(evaluator, e, target) if j.dimension == "resolution")
        for e in (leaf, (*leaf, TileVae(512)))
    )
    assert tiled.height > plain.height


def test_a_batch_grows_with_memory_and_frames_are_left_out_of_pictures(flux, target_of) -> None:
    counts = []
    for vram in (26, 30, 40):
        target = target_of(vram, 64)
        jobs = largest_jobs(Evaluator(flux, target.card), OFFLOAD, target)
        assert {j.dimension for j in jobs} == {"resolution", "batch"}
        counts.append(next(j.batch for j in jobs if j.dimension == "batch"))
    assert counts == sorted(counts) and counts[0] >= 1


def test_nothing_is_promised_where_the_smallest_job_does_not_fit(flux, target_of) -> None:
    target = target_of(4, 64)
    assert largest_jobs(Evaluator(flux, target.card), (), target) == ()


def test_the_scaled_trace_is_close_to_the_trace_of_the_scaled_job(flux_of, card) -> None:
    """Scaling a 1-megapixel run to 4 gives what a run at 4 megapixels was made to need."""
    small, large = Evaluator(flux_of(), card), Evaluator(flux_of(megapixels=4.0), card)
    scenario = scenario_of([Place("*", "leaf")])
    from dataclasses import replace

    scaled = small.fold(replace(scenario, scale=Scale(pixels=4.0)))
    assert scaled.allocated == pytest.approx(large.fold(scenario).allocated, rel=0.01)


def test_the_smallest_card_holds_it_and_no_smaller_one_does(flux, card) -> None:
    evaluator = Evaluator(flux, card)
    cards = [card.model_copy(update={"name": f"{g}", "total_bytes": g * GIB}) for g in (8, 16, 24, 32, 48, 80)]
    found = smallest_card(evaluator, (), cards)
    need = card_bytes(evaluator.figures(()), card.context_bytes)
    assert found is not None and found.total_bytes >= need
    assert all(c.total_bytes < need for c in cards if c.total_bytes < found.total_bytes)
    assert smallest_card(evaluator, (), cards[:2]) is None


def test_two_cards_are_not_one_of_twice_the_size(flux, target_of) -> None:
    target = target_of(24, 64, gpu_count=2)
    evaluator = Evaluator(flux, target.card)
    found = {s.kind: s for s in spreadings(evaluator, target)}
    assert {"balanced", "auto", "context"} <= set(found)
    assert set(found["balanced"].placement.values()) == {0, 1}
    assert "max_memory" in found["balanced"].code and 'device_map="auto"' in found["auto"].code
    assert found["context"].launch == "torchrun --nproc-per-node 2 SCRIPT"
    alone = evaluator.figures(())
    for kind in ("components", "layers"):
        shared = evaluator.figures((MultiGpu(2, kind),))
        assert alone.allocated / 2 < shared.allocated < alone.allocated
    context = evaluator.figures((MultiGpu(2, "context"),))
    assert context.allocated == alone.allocated, "the VAE's peak is not shared out"
    denoise = Stage.DENOISE
    assert 0 < alone.stages[denoise].allocated - context.stages[denoise].allocated < 0.1 * alone.allocated
    assert not found["context"].fits and shortfalls(alone, target)
    assert spreadings(evaluator, target_of(24, 64)) == ()
    plan = compute_strategies(flux, target)
    assert VRAM_DOES_NOT_ADD_UP in plan.notes and plan.spreadings


def test_frames_come_in_the_steps_of_the_measured_number(flux_of, target_of) -> None:
    """A video of 81 frames is one frame and twenty portions of four; 78 would not run in most pipelines."""
    video = flux_of()
    video = video.model_copy(update={"call": {**video.call, "num_frames": 81}})
    target = target_of(26, 64)
    job = next(j for j in largest_jobs(Evaluator(video, target.card), OFFLOAD, target) if j.dimension == "frames")
    assert job.frames % 8 == 1
    video = video.model_copy(update={"call": {**video.call, "num_frames": 61}})
    job = next(j for j in largest_jobs(Evaluator(video, target.card), OFFLOAD, target) if j.dimension == "frames")
    assert job.frames % 4 == 1


def test_placing_by_hand_is_shown_where_it_leaves_more_room(flux, target_of) -> None:
    """*balanced* goes by size alone and puts the VAE, whose activations are the largest, beside the transformer."""
    target = target_of(24, 64, gpu_count=2)
    found = {s.kind: s for s in spreadings(Evaluator(flux, target.card), target)}
    custom, balanced_ = found["custom"], found["balanced"]
    assert custom.vram_bytes < balanced_.vram_bytes
    assert custom.placement["vae"] != custom.placement["transformer"]
    for name, card in custom.placement.items():
        assert f'dispatch_model(pipe.{name}.to("cuda:{card}"), {{"": {card}}}, force_hooks=True)' in custom.code
        assert custom.strategy is not None and f"{name}={card}" in custom.strategy


def test_balanced_takes_turns_there_and_back() -> None:
    sizes = {"a": 5, "b": 4, "c": 3, "d": 2, "e": 1}
    assert balanced(sizes, 2) == {"a": 0, "b": 1, "c": 1, "d": 0, "e": 0}


def test_every_way_to_share_is_tried_once() -> None:
    ways = list(sharings(["a", "b", "c"], 2))
    assert len(ways) == 4 == len({tuple(w.values()) for w in ways})
    assert {"a": 0, "b": 1, "c": 0} in ways
