"""What inspect_ai finds through the entry point of group ``inspect_ai``."""

from oomdoctor_evals.inspection.model import scripted_model
from oomdoctor_evals.inspection.scorer import fit
from oomdoctor_evals.inspection.task import oom_doctor

__all__ = ["fit", "oom_doctor", "scripted_model"]
