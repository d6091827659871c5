"""Trials: run a script in a child process of the user's interpreter, on a virtual card, and say how it went.

``child``, ``running``, ``watch`` and ``guards`` are the child's side and import neither pydantic nor the rest of us;
``zygote``, ``runner`` and ``measuring`` are ours.
"""

from oomdoctor.trial.measuring import to_measurement
from oomdoctor.trial.runner import run_unlimited, run_virtual
from oomdoctor.trial.zygote import Progress, Zygote

__all__ = ["Progress", "Zygote", "run_unlimited", "run_virtual", "to_measurement"]
