"""Answers to the questions that people ask about a plan besides "what fits": sizes, limits, other cards, several cards."""

from __future__ import annotations

from typing import Literal

from oomdoctor.values.base import Value


class Formula(Value):
    """One symbol of the published memory calculators with its value for this pipeline."""

    symbol: str
    """As the published calculator writes it: ``S_total``, ``S_max``, ``S_block``, ``S_leaf``, ``A`` ..."""
    format: str = "native"
    bytes: int
    of: str | None = None
    """The component (or stage) that it is about."""
    published_bytes: int | None = None
    """For a sum of symbols: what the published sum comes to, where ``bytes`` is what the trace says."""
    meaning: str
    correction: str | None = None
    """Where the popular use of the symbol goes wrong."""


class LargestJob(Value):
    """The most that fits along one dimension, the other arguments as measured."""

    dimension: str
    """``resolution``, ``frames`` or ``batch``."""
    height: int | None = None
    width: int | None = None
    frames: int | None = None
    batch: int | None = None
    factor: float
    """Against the measured job; below 1 the measured job does not fit."""
    capped: bool = False
    """It still fits at the largest factor that was looked at."""
    rests_on: str = "activations of the denoiser and the VAE grow with pixels x frames x batch; attention is not math"


class CardNeed(Value):
    """What a card must have for one strategy."""

    bytes: int
    """Free memory: peak, context and margin."""
    card: str | None = None
    """The smallest card of the catalogue that has it when nothing else runs there; None when none has."""
    label: str | None = None
    total_bytes: int | None = None


class Spreading(Value):
    """One way to use several cards."""

    kind: str
    """``components``: device_map of the pipeline; ``layers``: device_map of one model; ``context``: context parallel."""
    code: str
    """The arguments or lines that do it."""
    launch: str | None = None
    """How the script is started, where plain ``python`` does not do."""
    vram_bytes: int
    """Peak on the fullest card, context included."""
    fits: bool
    proof: Literal["estimated", "simulated", "measured"] = "estimated"
    """``simulated``: the script with it ran on so many virtual cards, and the figures are that run's."""
    placement: dict[str, int] = {}
    """Component -> card, where that is decided here."""
    strategy: str | None = None
    """The id that writes it into the script; None where that is left to the person."""
    notes: tuple[str, ...] = ()
