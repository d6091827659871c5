"""The list that is shown: what fits, in which order, and what is said when nothing does."""

from __future__ import annotations

import pytest
from oomdoctor.errors import InputError, UnknownStrategy
from oomdoctor.planner import Rules, compute_strategies, estimate
from oomdoctor.rewrite import rewrite
from oomdoctor.script import read_script
from oomdoctor.values import Diagnosis, Kind, Quality, Stage, Strategy

SCRIPT = """import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
{more}image = pipe("a cat", height=1024, width=1024, num_inference_steps=28).images[0]
"""


def test_plain_comes_first_where_it_fits(flux, target_of) -> None:
    plan = compute_strategies(flux, target_of(48, 64), prefer="quality")
    assert plan.strategies[0].id == "plain"
    assert plan.strategies[0].estimate.slowdown == pytest.approx(1.0)
    assert not plan.none_fits and not plan.unlock


def test_everything_shown_fits_free_memory_with_the_margin(flux, target_of) -> None:
    target = target_of(12, 64)
    plan = compute_strategies(flux, target)
    assert plan.strategies
    for option in plan.strategies:
        value = option.estimate
        assert value.fits
        assert value.vram_bytes + value.margin_bytes <= target.vram_bytes
        assert value.ram_bytes <= target.ram_bytes
        assert option.proof == "estimated"


def test_caches_are_kept_only_where_there_is_room(flux, target_of) -> None:
    """PyTorch's allocator gives free segments back before it fails, so a card need not hold what it would cache."""
    strategy = Strategy.parse("group_offload(leaf)")
    roomy = estimate(strategy, flux, target_of(40, 64))
    assert roomy.least_vram_bytes < roomy.vram_bytes
    tight = estimate(strategy, flux, target_of((roomy.least_vram_bytes + roomy.margin_bytes) / 2**30 + 0.01, 64))
    assert tight.fits and tight.vram_bytes < roomy.vram_bytes and tight.least_vram_bytes == roomy.least_vram_bytes
    assert not estimate(strategy, flux, target_of(roomy.least_vram_bytes / 2**30, 64)).fits


def test_free_memory_counts_not_the_size_of_the_card(flux, target_of) -> None:
    target = target_of(48, 64)
    busy = target.model_copy(update={"vram_bytes": 20 << 30})
    assert "plain" not in [o.id for o in compute_strategies(flux, busy).strategies]


def test_an_estimate_agrees_with_the_plan(flux, target_of) -> None:
    target = target_of(24, 64)
    for option in compute_strategies(flux, target).strategies:
        assert estimate(Strategy.parse(option.id), flux, target) == option.estimate


def test_preferences_lead_to_their_own_best(flux, target_of) -> None:
    target = target_of(40, 64)
    best = {p: compute_strategies(flux, target, prefer=p).strategies for p in ("quality", "speed", "memory")}
    assert best["quality"][0].estimate.quality in (Quality.IDENTICAL, Quality.EQUIVALENT)
    assert best["speed"][0].estimate.seconds == min(o.estimate.seconds for o in best["speed"])
    least = min(o.estimate.least_vram_bytes for o in best["memory"])
    assert best["memory"][0].estimate.least_vram_bytes < least + (64 << 20), "a few MiB are not worth waiting for"


def test_the_list_is_short_and_every_entry_is_different(flux, target_of) -> None:
    plan = compute_strategies(flux, target_of(24, 64), limit=4)
    assert 1 < len(plan.strategies) <= 4
    assert len({o.id for o in plan.strategies}) == len(plan.strategies)
    assert plan.considered >= len(plan.strategies)


def test_nothing_fits_names_what_would_help(flux, target_of) -> None:
    plan = compute_strategies(flux, target_of(24, 0.5))
    assert plan.none_fits and not plan.strategies
    assert any("RAM" in line for line in plan.unlock)
    tiny = compute_strategies(flux, target_of(1, 64))
    assert tiny.none_fits
    assert any(line.startswith("A card with") for line in tiny.unlock)


def test_a_limit_on_slowness_is_kept_and_named(flux, target_of) -> None:
    plan = compute_strategies(flux, target_of(24, 64), rules=Rules(max_slowdown=1.45))
    assert all(o.estimate.slowdown <= 1.45 for o in plan.strategies)
    strict = compute_strategies(flux, target_of(8, 64), rules=Rules(max_slowdown=1.01))
    assert strict.none_fits
    assert any("the time" in line for line in strict.unlock)


def test_rules_take_techniques_out(flux, target_of) -> None:
    plan = compute_strategies(flux, target_of(24, 64), rules=Rules(worst_quality=Quality.EQUIVALENT), detail=True)
    assert {o.estimate.quality for o in plan.strategies} <= {Quality.IDENTICAL, Quality.EQUIVALENT}
    without = compute_strategies(flux, target_of(24, 64), rules=Rules(without=("model_offload",)), detail=True)
    assert all("model_offload" not in o.id for o in without.strategies)
    assert without.illegal["model_offload"] == "you asked to do without it"


def test_more_ram_never_makes_fewer_fit(flux, target_of) -> None:
    counts = []
    for ram in (0.5, 16, 32, 48, 64, 128):
        counts.append(compute_strategies(flux, target_of(12, ram)).fitting)
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[-1]


@pytest.mark.parametrize("prefer", ["quality", "balanced"])
def test_more_of_the_card_never_loses_an_option(flux, target_of, prefer) -> None:
    small = compute_strategies(flux, target_of(12, 48), prefer=prefer).strategies
    assert small
    for option in small:
        for vram, ram in ((12.5, 48), (16, 48), (24, 64)):
            value = estimate(option.strategy, flux, target_of(vram, ram))
            assert value.fits and value.vram_bytes == option.estimate.vram_bytes


def test_both_sorts_are_shown_and_each_entry_has_its_own_merit(flux, target_of) -> None:
    shown = compute_strategies(flux, target_of(12, 48)).strategies
    assert {"quantisation", "offloading / casting"} <= {o.group for o in shown}
    for option in shown:
        for before in shown[: shown.index(option)]:
            a, b = option.estimate, before.estimate
            better = (
                a.quality.rank < b.quality.rank or len(a.new_packages) < len(b.new_packages),
                a.seconds < 0.95 * b.seconds or a.vram_bytes < 0.95 * b.vram_bytes or a.ram_bytes < 0.95 * b.ram_bytes,
                option.group != before.group,
            )
            assert any(better), f"{option.id} is no better than {before.id}"


def test_every_technique_is_offered_or_has_a_reason(flux, target_of) -> None:
    plan = compute_strategies(flux, target_of(24, 64), detail=True)
    used = {a.technique for o in plan.strategies for a in o.strategy.applications}
    reasons = {name.split("(")[0] for name in plan.illegal}
    assert "device_map" in reasons and "one card" in plan.illegal["device_map"]
    assert all(plan.illegal.values())
    assert not used & {n for n in plan.illegal if "(" not in n}


def test_torchao_weights_are_not_pinned_on_demand(flux, target_of) -> None:
    """They would stay on the card: diffusers' host copy of them is the parameter itself."""
    plan = compute_strategies(flux, target_of(40, 64), front=True, limit=20)
    ids = [o.id for o in (*plan.strategies, *plan.pareto)]
    assert any("torchao" in i for i in ids) and any("low_cpu_mem" in i for i in ids)
    assert not [i for i in ids if "torchao" in i and "low_cpu_mem=true" in i]


def test_rules_are_kept(flux_of, target_of) -> None:
    flux = flux_of(batch=4)
    rules = Rules(no_quantisation=True, no_new_packages=True, keep_batch=True, max_slowdown=3.0)
    plan = compute_strategies(flux, target_of(24, 64), rules=rules, detail=True)
    assert plan.strategies
    for option in plan.strategies:
        assert option.group != "quantisation" and not option.estimate.new_packages
        assert "batch_split" not in option.id and option.estimate.slowdown <= 3.0


def test_files_that_do_not_fit_beside_the_rest_are_read_again_and_again(flux, target_of) -> None:
    """Streaming from the mapped checkpoint is fast while the page cache holds it and slow where it does not."""
    strategy = Strategy.parse("group_offload(leaf, stream=true, low_cpu_mem=true)")
    mapped = tuple(c.model_copy(update={"anonymous_bytes": 0}) for c in flux.components)
    waiting = flux.model_copy(update={"components": mapped})
    roomy, tight = (estimate(strategy, waiting, target_of(12, ram)) for ram in (64, 16))
    assert tight.ram_bytes == roomy.ram_bytes and tight.fits
    assert tight.seconds > 2 * roomy.seconds


def test_seconds_add_up(flux, target_of) -> None:
    for name in ("model_offload", "group_offload(leaf, stream=true)", "bnb_nf4(transformer)"):
        value = estimate(Strategy.parse(name), flux, target_of(40, 64))
        assert value.compute_seconds + value.transfer_seconds - value.overlap_seconds <= value.seconds * 1.001
        assert value.first_seconds >= value.seconds
        assert (value.unpack_seconds > 0) == ("bnb" in name)


def test_bad_wishes_are_refused(flux, target_of) -> None:
    with pytest.raises(InputError, match="balanced"):
        compute_strategies(flux, target_of(), prefer="cheap")
    with pytest.raises(InputError, match="limit"):
        compute_strategies(flux, target_of(), limit=0)
    with pytest.raises(UnknownStrategy):
        estimate(Strategy.parse("magic"), flux, target_of())


def test_the_allocators_setting_is_for_fragmentation_only(flux, target_of) -> None:
    """It is what the message of every death suggests, and seldom what helps."""
    script = read_script(SCRIPT.format(more=""))

    def offered(kind: Kind | None) -> bool:
        said = {"is_oom": True, "stage": Stage.DENOISE, "cause": "", "next_step": "", "confidence": "high"}
        diagnosis = None if kind is None else Diagnosis(kind=kind, **said)
        plan = compute_strategies(flux, target_of(9, 32), script=script, diagnosis=diagnosis, detail=True)
        return "expandable_segments" not in plan.illegal

    assert not offered(None) and not offered(Kind.VRAM_CAPACITY)
    assert offered(Kind.FRAGMENTATION)


def test_what_a_script_does_already_takes_nothing_from_its_picture_anew(flux, target_of) -> None:
    tiling = "pipe.vae.enable_tiling(); pipe.vae.tile_sample_min_size = 512; pipe.vae.tile_latent_min_size = 64\n"
    strategy = Strategy.parse("group_offload(leaf)+vae_tiling(size=512)")
    target = target_of(12, 64)
    anew = estimate(strategy, flux, target, read_script(SCRIPT.format(more="")))
    kept = estimate(strategy, flux, target, read_script(SCRIPT.format(more=tiling)))
    assert anew.quality is Quality.SLIGHT and kept.quality is Quality.IDENTICAL


def test_lines_that_do_nothing_are_left_alone() -> None:
    """At its native size this VAE does not tile, and one picture has nothing to slice."""
    idle = "pipe.vae.enable_tiling()\npipe.vae.enable_slicing()\n"
    small = rewrite(SCRIPT.format(more=idle), Strategy.parse("model_offload"))
    assert "enable_tiling" in small.source and "enable_slicing" in small.source
    large = rewrite(SCRIPT.format(more=idle).replace("1024", "2048"), Strategy.parse("model_offload"))
    assert "enable_tiling" not in large.source and "enable_slicing" in large.source
