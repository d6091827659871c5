"""From what people write to one card, or to a refusal that helps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.errors import UnknownCard
from oomdoctor.hardware import card, cards
from oomdoctor.hardware.gpus.catalogue import rows
from oomdoctor.hardware.gpus.spelling import parse


@pytest.mark.parametrize("entry", rows(), ids=lambda r: r.card.name)
def test_every_name_and_label_resolves_to_itself(entry):
    made = entry.card
    assert card(made.name) == made
    assert card(made.name.upper().replace("-", " ")) == made
    assert card(f"{made.label} {entry.size_gb}GB" if "GB" not in made.label else made.label) == made
    same_label = [r for r in rows() if r.card.label == made.label]
    if len(same_label) == 1:
        assert card(made.label) == made
        assert card(made.label.lower()) == made
    elif any(r.usual for r in same_label):
        assert card(made.label) == next(r.card for r in same_label if r.usual)
    else:
        with pytest.raises(UnknownCard, match=made.name):
            card(made.label)


@pytest.mark.parametrize("entry", rows(), ids=lambda r: r.card.name)
def test_further_spellings_mean_their_card(entry):
    for text in entry.also:
        try:
            assert card(text) == entry.card
        except UnknownCard as error:  # "NVIDIA A100" is sold with 40 and 80 GB
            assert entry.card.name in str(error)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTX 3060", "rtx-3060-12gb"),
        ("3060", "rtx-3060-12gb"),
        ("nvidia geforce rtx 3060 12gb", "rtx-3060-12gb"),
        ("RTX 3060 12288MiB", "rtx-3060-12gb"),  # as nvidia-smi writes it
        ("RTX3060 8 GB", "rtx-3060-8gb"),
        ("rtx3060ti", "rtx-3060-ti-8gb"),
        ("3060 mobile", "rtx-3060-laptop-6gb"),
        ("RTX 2080 Super with Max-Q Design", None),
        ("RTX 3080", "rtx-3080-10gb"),
        ("3080 12 GB", "rtx-3080-12gb"),
        ("4090 laptop", "rtx-4090-laptop-16gb"),
        ("RTX 4090D", "rtx-4090-d-24gb"),
        ("4070 ti super", "rtx-4070-ti-super-16gb"),
        ("rtx_4060_ti_16gb", "rtx-4060-ti-16gb"),
        ("4050", "rtx-4050-laptop-6gb"),  # never sold as a desktop card
        ("A100-80G", "a100-80gb"),
        ("A100 PCIe 80GB", "a100-pcie-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("H100", "h100-80gb"),
        ("H100 SXM5 80GB", "h100-80gb"),
        ("Tesla T4", "t4-16gb"),
        ("T4 15GB", "t4-16gb"),  # Colab's way
        ("tesla v100 32gb", "v100-32gb"),
        ("RTX 6000 Ada", "rtx-6000-ada-48gb"),
        ("A6000", "rtx-a6000-48gb"),
        ("pro 6000", "rtx-pro-6000-blackwell-96gb"),
        ("7900XTX", "rx-7900-xtx-24gb"),
        ("MI300X", "mi300x-192gb"),
    ],
)
def test_loose_spellings(text, name):
    if name is None:
        with pytest.raises(UnknownCard):
            card(text)
    else:
        assert card(text).name == name


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("A100", ["a100-40gb", "a100-80gb"]),
        ("V100", ["v100-16gb", "v100-32gb"]),
        ("RTX 4060 Ti", ["rtx-4060-ti-8gb", "rtx-4060-ti-16gb"]),
        ("RTX 6000", ["quadro-rtx-6000-24gb", "rtx-6000-ada-48gb", "rtx-pro-6000-blackwell-96gb"]),
        ("RTX 3080 laptop", ["rtx-3080-laptop-8gb", "rtx-3080-laptop-16gb"]),
    ],
)
def test_what_could_be_several_is_refused_with_the_candidates(text, candidates):
    with pytest.raises(UnknownCard) as caught:
        card(text)
    assert all(name in str(caught.value) for name in candidates)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RTX 3060 16GB", "rtx-3060-12gb, rtx-3060-8gb"),  # a size that the card was never sold with
        ("RTX 4091", "rtx-4090"),  # the nearest names
        ("rtx 5900", "rtx-5090"),
        ("NVIDIA A100 80GB PCIe MIG 1g.10gb", "--vram"),  # a slice is not its card
        ("RTX 4090 with 48 GB", "--vram"),
        ("gpu", "oom-doctor gpus"),
        ("", "oom-doctor gpus"),
        ("12gb", "oom-doctor gpus"),
        ("laptop", "oom-doctor gpus"),
    ],
)
def test_what_is_unknown_is_refused_with_a_way_out(text, said):
    with pytest.raises(UnknownCard) as caught:
        card(text)
    assert said in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_gives_a_card_or_a_refusal(text):
    try:
        assert card(text) in cards()
    except UnknownCard as error:
        assert str(error)


@given(st.sampled_from(rows()), st.sampled_from(["", "NVIDIA ", "nvidia geforce ", "GPU "]), st.booleans())
def test_makers_words_and_case_do_not_matter(entry, prefix, upper):
    text = f"{prefix}{entry.card.name.replace('-', ' ')}"
    assert card(text.upper() if upper else text) == entry.card


def test_parse():
    assert parse("NVIDIA GeForce RTX 3060 12GB") == (frozenset({"3060"}), 12)
    assert parse("NVIDIA H100 80GB HBM3") == (frozenset({"h100"}), 80)
    assert parse("RTX 3060") == (frozenset({"3060"}), None)
