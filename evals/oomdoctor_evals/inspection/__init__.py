"""The same scenarios and the same grader under inspect_ai, for models. Needs the ``evals`` extra.

>>> inspect eval oomdoctor_evals/oom_doctor -T condition=skill_tools --model PROVIDER/MODEL --epochs 3
"""

from __future__ import annotations

from types import ModuleType

from oomdoctor.errors import InputError


def inspect_ai() -> ModuleType:
    """The library. Raises :class:`InputError` with the way to get it."""
    try:
        import inspect_ai as found
    except ImportError:
        raise InputError("This needs inspect_ai: pip install 'oom-doctor[evals]'.") from None
    module: ModuleType = found
    return module
