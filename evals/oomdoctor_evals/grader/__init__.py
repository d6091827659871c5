"""Grades an answer. Own code throughout: nothing of oomdoctor's planner, techniques, rewriter or doctor is imported."""

from oomdoctor_evals.grader.grade import grade

__all__ = ["grade"]
