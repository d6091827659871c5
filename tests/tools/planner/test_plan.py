"""The list that is shown: what fits, in which order, and what is said when nothing does."""

from __future__ import annotations

import pytest
from oomdoctor.errors import InputError, UnknownStrategy
from oomdoctor.planner import Rules, compute_strategies, estimate
from oomdoctor.values import Quality, Strategy


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
    least = min(o.estimate.vram_bytes for o in best["memory"])
    assert best["memory"][0].estimate.vram_bytes < least + (64 << 20), "a few MiB are not worth waiting for"


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
        notes = compute_strategies(flux, target_of(12, ram)).notes[-1]
        counts.append(int(notes.split(",")[-1].split()[0]))
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[-1]


def test_bad_wishes_are_refused(flux, target_of) -> None:
    with pytest.raises(InputError, match="balanced"):
        compute_strategies(flux, target_of(), prefer="cheap")
    with pytest.raises(InputError, match="limit"):
        compute_strategies(flux, target_of(), limit=0)
    with pytest.raises(UnknownStrategy):
        estimate(Strategy.parse("magic"), flux, target_of())
