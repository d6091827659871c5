"""What a family of scenarios is: one script with knobs, and variants on both sides of a feasibility boundary."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from oomdoctor_evals.values import Machine, Os, Preference, Provenance, Rules, Truth, Verdict

Edits = tuple[tuple[str, str], ...]
"""(old text, new text) pairs; every old text must occur."""

SAME = Preference(
    text="The pictures must stay exactly as they are. It may take longer.",
    rules=Rules(quality="identical", quantise="forbid"),
)
NO_QUANT = Preference(
    text="No quantisation please, and nothing new to install. Otherwise whatever works best.",
    rules=Rules(quality="slight", quantise="forbid"),
)
FAST = Preference(
    text="As fast as possible. Quantisation is fine, and a small loss of quality too; no new packages.",
    rules=Rules(quality="noticeable", quantise="allow"),
)


HURRY = Preference(
    text="No loss of quality at all, and at most 5 % slower than on a card that holds everything.",
    rules=Rules(quality="identical", quantise="forbid", max_slowdown=1.05),
)


@dataclass(frozen=True)
class Variant:
    """One machine, one preference, and what is expected of it."""

    name: str
    category: str
    gpu: str
    ram_gib: float
    verdict: Verdict = "fixable"
    preference: Preference = SAME
    count: int = 1
    used_mib: int = 0
    os: Os = "linux"
    versions: dict[str, str | None] = field(default_factory=dict)
    root_cause: str = "vram_capacity"
    truth: Truth | None = None
    """Written by hand where a run cannot tell."""
    set: dict[str, Any] = field(default_factory=dict)
    """Knobs of this variant, over those that are drawn."""
    twin: str | None = None
    """Name of the variant of this family across the boundary."""
    style: str = "plain"
    """How the evidence looks: see ``evidence.styles``."""
    evidence: str | None = None
    """Text of an error that no virtual run gives (a full disk); ``{...}`` of the knobs are filled in."""
    other_gpus: tuple[str, ...] = ()
    """Cards that a held-out draw may take instead."""

    def machine(self, versions: dict[str, str | None]) -> Machine:
        return Machine(
            gpu=self.gpu, count=self.count, used_by_others_mib=self.used_mib, ram_mib=int(self.ram_gib * 1024),
            os=self.os, versions={**versions, **self.versions},
        )  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A script in a real idiom, with the places where answers differ."""

    name: str
    script: str
    """With ``{knob}`` in the places that are drawn; braces of the script itself are doubled."""
    place: str
    """The line (or lines) that put the pipeline on the card: what most answers replace."""
    variants: tuple[Variant, ...]
    provenance: Provenance = Provenance(kind="synthetic")
    knobs: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Name -> values that may be drawn; the first is the public one."""
    denoiser: str = "transformer"
    big: tuple[str, ...] = ()
    """Components worth quantising besides the denoiser."""
    load: str = ""
    """Text of the pipeline's load at which a ``quantization_config`` can be put in front."""
    dtype: str = "torch.bfloat16"
    batched: bool = False
    """Several pictures per call, so that decoding them one by one is worth trying."""
    only: tuple[str, ...] | None = None
    """Names of the generic candidates that make sense here; None: all."""
    extra: dict[str, Edits] = field(default_factory=dict)
    """Answers that only this family has, as edits of the script."""
    wrong: dict[str, Edits] = field(default_factory=dict)
    """Plausible wrong answers of this family."""

    def draw(self, seed: str | None) -> dict[str, Any]:
        """The knobs: the first values without a seed, else drawn by it (the same seed, the same draw)."""
        if seed is None:
            return {name: values[0] for name, values in self.knobs.items()}
        chance = random.Random(f"{seed}/{self.name}")
        return {name: chance.choice(values) for name, values in self.knobs.items()}

    def text(self, knobs: dict[str, Any]) -> str:
        """The script of a draw."""
        return self.script.format(**knobs)


def edited(source: str, edits: Edits) -> str:
    """``source`` with every pair replaced once. Raises ``ValueError`` when a text is not there."""
    for old, new in edits:
        if old not in source:
            raise ValueError(f"{old!r} is not in the script, so this edit cannot be made")
        source = source.replace(old, new, 1)
    return source
