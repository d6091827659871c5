"""Trials: run a script in a child process of the user's interpreter, on a virtual card, and say how it went.

``zygote``, ``runner`` and ``measuring`` are ours; all other modules are the child's side and import neither pydantic nor
the rest of us. ``sandbox`` is used on both sides and is cheap to import: names are found here when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oomdoctor.trial.measuring import to_measurement
    from oomdoctor.trial.runner import run_unlimited, run_virtual
    from oomdoctor.trial.sandbox import Policy, sandbox_available
    from oomdoctor.trial.zygote import Live, Progress, Zygote

__all__ = [
    "Live", "Policy", "Progress", "Zygote", "run_unlimited", "run_virtual", "sandbox_available", "to_measurement",
]  # fmt: skip

_WHERE = {
    "Live": "zygote", "Policy": "sandbox", "Progress": "zygote", "Zygote": "zygote", "run_unlimited": "runner",
    "run_virtual": "runner", "sandbox_available": "sandbox", "to_measurement": "measuring",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
