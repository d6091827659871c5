"""Techniques are found by walking, named in order, checked against each other, and unknown ones are named unknown."""

from __future__ import annotations

import pytest
from oomdoctor.errors import UnknownStrategy
from oomdoctor.techniques import all_techniques, clashes, ordered, technique, validate
from oomdoctor.techniques.base import Phase
from oomdoctor.values import Strategy


def test_first_techniques_are_there() -> None:
    assert {"dtype", "model_offload", "group_offload", "fp8_casting", "vae_tiling"} <= set(all_techniques())


def test_each_declares_itself() -> None:
    for name, known in all_techniques().items():
        assert known.name == name
        assert known.summary.endswith(".") and len(known.summary) < 140, name
        assert known.docs.startswith("https://"), name
        assert known.tags and isinstance(known.phase, Phase), name


def test_conflicts_name_something_that_exists() -> None:
    tags = {tag for t in all_techniques().values() for tag in t.tags}
    for name, known in all_techniques().items():
        unknown = set(known.conflicts) - tags - set(all_techniques())
        assert not unknown, f"{name}: {unknown}"


def test_unknown_technique_lists_those_that_exist() -> None:
    with pytest.raises(UnknownStrategy, match="model_offload"):
        technique("magic_offload")


@pytest.mark.parametrize(
    "strategy, why",
    [
        ("model_offload(transformer)", "no such word"),
        ("dtype(fp32)", "bf16, fp16"),
        ("group_offload(leaf, steam=true)", "stream="),
        ("group_offload(leaf, stream=1)", "must be bool"),
        ("vae_tiling(size=big)", "must be int"),
    ],
)
def test_unknown_words_and_options_are_named(strategy: str, why: str) -> None:
    with pytest.raises(UnknownStrategy, match=why):
        for application in Strategy.parse(strategy).applications:
            validate(application)


def test_written_order_does_not_depend_on_the_id() -> None:
    wanted = "dtype(bf16)+fp8_casting(transformer)+model_offload+vae_tiling"
    shuffled = "vae_tiling+model_offload+fp8_casting(transformer)+dtype(bf16)"
    assert ordered(Strategy.parse(shuffled)).id == wanted


def test_placements_exclude_each_other() -> None:
    assert clashes("model_offload", "group_offload")
    assert clashes("sequential_offload", "model_offload")
    assert not clashes("model_offload", "vae_tiling")
    assert not clashes("group_offload", "fp8_casting")
