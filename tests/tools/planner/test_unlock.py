"""What is said when nothing fits: changes that were tried, under the rules that were set."""

from __future__ import annotations

import re

from oomdoctor.planner import Rules, compute_strategies, estimate
from oomdoctor.planner.plan import evaluator_for
from oomdoctor.values import Strategy

IDS = re.compile(r"([a-z_0-9]+(?:\([^)]*\))?(?:\+[a-z_0-9]+(?:\([^)]*\))?)*) fits (?:then|without)")


def test_a_rule_is_named_only_where_it_stands_in_the_way(flux, target_of) -> None:
    """16 GiB of RAM hold FLUX.1-dev quantised while it is loaded, and not otherwise."""
    target = target_of(11, 16)
    assert compute_strategies(flux, target).strategies, "something fits without rules"
    plan = compute_strategies(flux, target, rules=Rules(no_quantisation=True))
    assert plan.none_fits
    told = [u for u in plan.unlock if u.startswith("Allow quantisation")]
    assert len(told) == 1
    value = estimate(Strategy.parse(IDS.search(told[0]).group(1)), flux, target)
    assert value.fits
    hopeless = compute_strategies(flux, target_of(0.5, 16), rules=Rules(no_quantisation=True, keep_batch=True))
    assert hopeless.none_fits and not any(u.startswith("Allow") for u in hopeless.unlock)


def test_rules_that_only_together_are_too_much_are_named_together(flux, target_of) -> None:
    rules = Rules(no_quantisation=True, no_new_packages=True)
    plan = compute_strategies(flux, target_of(11, 16), rules=rules)
    told = [u for u in plan.unlock if "together" in u]
    assert plan.none_fits and len(told) == 1 and "allow quantisation, allow a new package" in told[0]


def test_a_larger_card_keeps_the_rules_about_time(flux, target_of) -> None:
    """What is slow needs the least memory, but the person asked for no slow one; and what is not slow may still need
    less than the script as it is."""
    target = target_of(9, 64)
    slow, fast = Rules(no_quantisation=True), Rules(no_quantisation=True, max_slowdown=1.05)
    assert compute_strategies(flux, target, rules=slow).strategies
    plan = compute_strategies(flux, target, rules=fast)
    assert plan.none_fits
    cards = [u for u in plan.unlock if u.startswith("A card with")]
    resident = evaluator_for(flux, target).resident_seconds
    named = [u.rsplit(" with ", 1)[1].rstrip(".") for u in cards if " with " in u.removeprefix("A card with")]
    assert named
    for name in named:
        assert estimate(Strategy.parse(name), flux, target).seconds <= 1.05 * resident
