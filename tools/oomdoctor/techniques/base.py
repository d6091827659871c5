"""What a technique is. One technique is one file (or folder) here; adding one touches nothing else.

A technique declares what it is (name, tags, phase, quality), says when it is legal, what it does to memory as
effects, how it is written into a script, how an existing use of it is recognised, and shows examples of both: code
it changes, and code it must not touch. The examples are its tests and its documentation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Literal

from oomdoctor.techniques.context import Context
from oomdoctor.techniques.effects import Effect
from oomdoctor.techniques.uses import Use, uses_of
from oomdoctor.values import Application, Measurement, Optimisation, PipelineUse, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

__all__ = ["PLACING", "Changes", "Context", "Example", "Group", "Phase", "Refusal", "Tag", "Technique", "Use"]

Tag = Literal[
    "dtype", "offload", "group_offload", "layerwise_casting", "quantization", "vae_memory", "attention", "batch",
    "text_encoder_release", "placement", "loading", "allocator", "compile", "multi_gpu", "smaller_job", "speed",
]  # fmt: skip
Group = Literal["plain", "offloading / casting", "quantisation", "other"]


PLACING = {"offload", "group_offload", "multi_gpu", "placement", "text_encoder_release"}
"""Tags of techniques that decide where the pipeline is."""


class Phase(IntEnum):
    """Where in a script a technique is written: the only order that works, from top to bottom."""

    ENVIRONMENT = 0
    LOAD_DTYPE = 10
    LOAD = 20
    ADAPTERS = 30
    QUANTIZE = 40
    CAST = 50
    OFFLOAD = 60
    VAE = 70
    ATTENTION = 80
    COMPILE = 90
    CALL = 100


@dataclass(frozen=True)
class Changes:
    """``before`` becomes ``after`` under ``strategy`` (the id of one or more techniques)."""

    before: str
    after: str
    strategy: str
    versions: tuple[tuple[str, str], ...] = ()
    why: str = ""
    by_hand: str = ""
    """Words of what is left to a person; empty when nothing is."""


@dataclass(frozen=True)
class Refusal:
    """``strategy`` is not legal for ``code``; the refusal's text holds ``why``."""

    code: str
    strategy: str
    why: str
    versions: tuple[tuple[str, str], ...] = ()


Example = Changes | Refusal


class Technique(ABC):
    """One way to need less memory, or less time. Instances have no state."""

    name: ClassVar[str]
    """The word in a strategy's id."""
    summary: ClassVar[str]
    """One line: what it does and what it costs."""
    docs: ClassVar[str]
    tags: ClassVar[tuple[Tag, ...]]
    phase: ClassVar[Phase]
    quality: ClassVar[Quality]
    group: ClassVar[Group] = "other"
    conflicts: ClassVar[tuple[str, ...]] = ()
    """Tags or names of techniques that cannot stand beside this one."""
    words: ClassVar[tuple[str, ...] | Literal["components", "any"]] = ()
    """What may stand in the brackets without ``=``: these words, component names, or anything."""
    keys: ClassVar[Mapping[str, tuple[type, ...]]] = {}
    """Options: name -> accepted types."""
    component_keys: ClassVar[tuple[type, ...]] = ()
    """Names of components may stand as options as well (``transformer=1``): the types they take."""
    explains: ClassVar[Mapping[str, str]] = {}
    """What each word and option does, in one line; ``component`` stands for names of parts of the pipeline."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions it needs beyond torch, diffusers and transformers."""
    settles: ClassVar[bool] = True
    """It is part of how memory is handled, so a strategy without it takes an existing use out of the script.
    False: an existing use is the user's own business and stays."""
    restores: ClassVar[bool] = False
    """It takes out what costs memory and does no more, as every other strategy does on the way: where it is offered, the
    script as it stands is none of the choices."""
    examples: ClassVar[Sequence[Example]]

    # -- choosing ------------------------------------------------------------------------------------------------

    def options(self, context: Context) -> tuple[Application, ...]:
        """The applications that are worth trying for this script and measurement, best first."""
        return (Application(technique=self.name),)

    def resolve(self, application: Application, context: Context) -> Application:
        """The application with its defaults filled in, so that two ways to write one thing compare equal."""
        return application

    @abstractmethod
    def applies_to(self, context: Context, application: Application) -> str | None:
        """None when it is legal here, else the reason in one sentence. ``application`` is resolved."""

    @abstractmethod
    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        """What is where, in which format, and how the work is cut."""

    # -- writing -------------------------------------------------------------------------------------------------

    @abstractmethod
    def write(self, draft: Draft, application: Application) -> None:
        """Write it into the script. ``application`` is resolved and legal, and not in the script yet."""

    def tidy(self, draft: Draft, application: Application) -> None:  # noqa: B027  (most techniques need nothing)
        """What must hold beside a use that is already there, such as no `.to("cuda")` beside offloading."""

    def always(self, draft: Draft) -> None:  # noqa: B027  (most techniques need nothing)
        """What any rewrite puts right on the way: calls that the installed version does not know any more."""

    def found(self, use: PipelineUse) -> tuple[Use, ...]:
        """The places where the script uses it already."""
        return tuple(u for u in uses_of(use) if self.owns(u))

    def owns(self, use: Use) -> bool:
        """This statement of the script is a use of this technique."""
        return False

    def kept_phase(self, use: Use) -> int:
        """Where an existing use stands in the order, when it stays."""
        return int(self.phase)

    def recognise(self, use: PipelineUse) -> tuple[Optimisation, ...]:
        """The same, as the reader saw them."""
        return tuple(u.found for u in self.found(use))

    def read(self, context: Context) -> Application | None:
        """What the script does already, as an application; None when it does not use the technique."""
        return Application(technique=self.name) if self.found(context.use) else None

    def idle(self, context: Context, present: Application) -> bool:
        """What the script has of it does nothing for this script's call, so a strategy without it may leave it there."""
        return False

    def remove(self, draft: Draft) -> None:
        """Take existing uses out of the script."""
        for use in self.found(draft.use):
            draft.remove_optimisation(use.found, self.why_gone(draft))

    def why_gone(self, draft: Draft) -> str:
        """Why an existing use goes, for the one who reads the patch."""
        if draft.renews:
            return f"Makes room for {self.name} as the chosen strategy has it."
        return f"Takes out {self.name}: the chosen strategy does without it."
