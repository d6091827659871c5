"""Existing uses of techniques in a script, in one shape, whichever way they are written.

``pipe.vae.enable_tiling()``, ``vae.enable_tiling()`` of a VAE that is passed in, and
``apply_group_offloading(pipe.vae, ...)`` all say which component (``owner``) gets which treatment (``verb``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oomdoctor.values import Known, Optimisation, PipelineUse

_LIBRARIES = ("torch", "diffusers", "accelerate", "torchao", "optimum")


@dataclass(frozen=True)
class Use:
    """One statement that uses a technique."""

    owner: str
    """Component, with dots inside it (``vae``, ``vae.decoder``); empty: the whole pipeline, or the process."""
    verb: str
    """Method, function or attribute: ``enable_tiling``, ``apply_group_offloading``, ``allow_tf32``."""
    path: str
    """Everything as written, dots included."""
    found: Optimisation

    def argument(self, name: str, default: Any = None) -> Any:
        """Value of a keyword argument; ``default`` when it is not written; None when it is not known."""
        known = self.found.arguments.get(name)
        return default if known is None else known.value

    def text(self, name: str) -> str | None:
        """The same as written."""
        known: Known | None = self.found.arguments.get(name)
        return known.text if known else None


def uses_of(use: PipelineUse) -> tuple[Use, ...]:
    """All uses that the reader found for a pipeline."""
    return tuple(_as_use(use, found) for found in use.optimisations)


def _as_use(use: PipelineUse, found: Optimisation) -> Use:
    head, _, verb = found.method.rpartition(".")
    owner = _component(use, found.target)
    if not owner and head.split(".")[0] not in _LIBRARIES:
        owner = head
    return Use(owner, verb, f"{found.target}.{verb}" if found.target else found.method, found)


def _component(use: PipelineUse, owner: str) -> str:
    """``pipe.vae`` -> ``vae``; a variable that is passed in as a component -> the component's name."""
    if owner == use.variable:
        return ""
    if use.variable and owner.startswith(use.variable + "."):
        return owner[len(use.variable) + 1 :]
    for loaded in use.components:
        if loaded.variable and (owner == loaded.variable or owner.startswith(loaded.variable + ".")):
            return loaded.name + owner[len(loaded.variable) :]
    return owner
