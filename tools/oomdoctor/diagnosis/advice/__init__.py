"""What follows from a verdict: the cause in a sentence, the next step, techniques that help, advice that would not."""

from oomdoctor.diagnosis.advice.causes import cause, next_step
from oomdoctor.diagnosis.advice.fixes import fix_families
from oomdoctor.diagnosis.advice.unhelpful import not_helpful
from oomdoctor.diagnosis.advice.warnings import warnings

__all__ = ["cause", "fix_families", "next_step", "not_helpful", "warnings"]
