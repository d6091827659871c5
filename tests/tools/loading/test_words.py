"""The tokenizer without a vocabulary, and patch grids of vision processors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.loading import words


def test_lengths_are_near_those_of_real_tokenizers() -> None:
    # Counted with the published CLIP and Qwen2.5 vocabularies.
    assert len(words.pieces("a photo of an astronaut riding a horse on mars", 10)) == pytest.approx(10, abs=1)
    template = (
        "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
        "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
    )
    assert len(words.pieces(template, 10)) == pytest.approx(34, abs=4)


def test_special_tokens_are_one_piece_and_keep_their_number() -> None:
    assert words.pieces("<|im_start|>user", 10) == ["<|im_start|>", "user"]
    assert words.number("<|image_pad|>", 151665) == 151655
    assert words.number("<|image_pad|>", 49408) < 49408


@given(st.text(max_size=300), st.sampled_from([6, 10]))
def test_every_text_is_cut_and_numbered_inside_the_vocabulary(text: str, letters: int) -> None:
    pieces = words.pieces(text, letters)
    assert all(len(piece) > 0 for piece in pieces)
    assert len(pieces) <= max(len(text), 1)
    assert all(1000 <= words.number(piece, 32100) < 32100 for piece in pieces)
    assert bool(pieces) == bool(text.strip() or "\n" in text)  # line breaks are a piece, other blanks are not


def test_families_by_class_name() -> None:
    assert words.family("CLIPTokenizerFast").length == 77
    assert words.family("T5TokenizerFast").eos == 1
    assert words.family("UMT5Tokenizer").vocabulary > words.family("T5Tokenizer").vocabulary
    assert words.family("SomethingElse") is words.OTHER
