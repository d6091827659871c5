"""Edits: positions, order, line endings, and that nothing else moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.rewrite.edits import Edit, apply, unified_diff
from oomdoctor.rewrite.text import Text


def edit(start: int, end: int, new: str, rank: int = 0, reason: str = "r") -> Edit:
    return Edit(start, end, new, "t", reason, rank)


def test_no_edit_no_change() -> None:
    assert apply("a\r\nb\t \n", []) == ("a\r\nb\t \n", ())


def test_insertions_at_one_place_stand_in_rank_order() -> None:
    assert apply("ab", [edit(1, 1, "Y", 2), edit(1, 1, "X", 1)])[0] == "aXYb"


def test_insertions_at_both_ends_of_a_removal_stay() -> None:
    assert apply("a-removed-b", [edit(1, 10, ""), edit(1, 1, "<"), edit(10, 10, ">")])[0] == "a<>b"


def test_an_edit_inside_a_removal_is_dropped() -> None:
    assert apply("a-removed-b", [edit(1, 10, ""), edit(4, 5, "X")])[0] == "ab"


def test_contradicting_edits_are_a_defect() -> None:
    with pytest.raises(ValueError, match="overlap"):
        apply("abcdef", [edit(0, 3, "x"), edit(2, 5, "y")])


def test_reason_names_the_line_in_the_new_text() -> None:
    changed, reasons = apply("a\nb\nc\n", [edit(0, 0, "x\ny\n", reason="first"), edit(4, 5, "C", reason="second")])
    assert changed == "x\ny\na\nb\nC\n"
    assert [(r.line, r.text) for r in reasons] == [(1, "first"), (5, "second")]


@given(st.text(alphabet="ab\r\n\t\x0c\u2028é", max_size=60))
def test_text_positions_round_trip(source: str) -> None:
    text = Text(source)
    for offset in range(len(source)):
        line = text.line_of(offset)
        assert text.line_start(offset) <= offset < max(text.next_line(offset), text.line_end(offset) + 1)
        assert text.offset(line, offset - text.line_start(offset)) == offset


def test_diff_applies_to_text_without_final_newline() -> None:
    diff = unified_diff("a\nb", "a\nc", "s.py")
    assert diff.count("\\ No newline at end of file") == 2
    assert unified_diff("same", "same", "s.py") == ""


@given(st.text(max_size=40), st.text(max_size=40))
def test_diff_is_empty_only_for_equal_text(before: str, after: str) -> None:
    assert (unified_diff(before, after, "s.py") == "") == (before == after)
