"""From a measurement and a machine to the strategies that fit, ranked.

>>> from oomdoctor.planner import Rules, compute_strategies, estimate
"""

from __future__ import annotations

from oomdoctor.planner.plan import compute_strategies, estimate
from oomdoctor.planner.rules import Prefer, Rules

__all__ = ["Prefer", "Rules", "compute_strategies", "estimate"]
