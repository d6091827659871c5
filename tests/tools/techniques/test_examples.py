"""Every technique's own examples: what it changes, and what it refuses."""

from __future__ import annotations

import ast

import pytest
from oomdoctor.errors import NotApplicable, UnknownStrategy
from oomdoctor.rewrite import rewrite
from oomdoctor.techniques import Changes, Refusal, all_techniques
from oomdoctor.values import Strategy

CHANGES = [
    pytest.param(e, id=f"{name}-{i}")
    for name, t in all_techniques().items()
    for i, e in enumerate(t.examples)
    if isinstance(e, Changes)
]
REFUSALS = [
    pytest.param(e, id=f"{name}-{i}")
    for name, t in all_techniques().items()
    for i, e in enumerate(t.examples)
    if isinstance(e, Refusal)
]


@pytest.mark.parametrize("example", CHANGES)
def test_it_changes_what_it_says(example: Changes) -> None:
    strategy, versions = Strategy.parse(example.strategy), dict(example.versions)
    patch = rewrite(example.before, strategy, versions=versions)
    assert patch.source == example.after, example.why
    ast.parse(patch.source)
    assert bool(patch.reasons) == patch.changed, "every change says why"
    assert bool(patch.by_hand) == bool(example.by_hand)
    assert example.by_hand in " ".join(patch.by_hand)


@pytest.mark.parametrize("example", CHANGES)
def test_a_second_time_changes_nothing(example: Changes) -> None:
    strategy, versions = Strategy.parse(example.strategy), dict(example.versions)
    assert rewrite(example.after, strategy, versions=versions).diff == ""


@pytest.mark.parametrize("example", REFUSALS)
def test_it_refuses_and_says_why(example: Refusal) -> None:
    with pytest.raises((NotApplicable, UnknownStrategy)) as refused:
        rewrite(example.code, Strategy.parse(example.strategy), versions=dict(example.versions))
    assert example.why in str(refused.value)


@pytest.mark.parametrize("name", list(all_techniques()))
def test_every_technique_shows_both(name: str) -> None:
    examples = all_techniques()[name].examples
    assert any(isinstance(e, Changes) for e in examples)
    assert any(isinstance(e, Refusal) for e in examples)
