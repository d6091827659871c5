"""A strategy is an ordered list of technique applications with a readable, stable id; an estimate is what it costs."""

from __future__ import annotations

import re
from typing import Literal

from oomdoctor.errors import UnknownStrategy
from oomdoctor.values.base import Quality, Stage, Value
from oomdoctor.values.questions import CardNeed, Formula, LargestJob, Spreading

Option = str | int | float | bool
Proof = Literal["estimated", "simulated", "measured"]

_TERM = re.compile(r"\s*([a-z][a-z0-9_]*)\s*(?:\(([^()]*)\))?\s*\Z")


class Application(Value):
    """One technique with its options. Written ``fp8_casting(transformer)`` or ``group_offload(leaf, stream=true)``."""

    technique: str
    components: tuple[str, ...] = ()
    """Bare words in the brackets: the components (or the level) it is applied to."""
    options: tuple[tuple[str, Option], ...] = ()

    @property
    def id(self) -> str:
        inside = [*self.components, *(f"{k}={_write(v)}" for k, v in self.options)]
        return f"{self.technique}({', '.join(inside)})" if inside else self.technique

    def option(self, name: str, default: Option) -> Option:
        return dict(self.options).get(name, default)


class Strategy(Value):
    """Ordered applications; ``plain`` (the empty id) changes nothing."""

    applications: tuple[Application, ...] = ()

    @property
    def id(self) -> str:
        return "+".join(a.id for a in self.applications) or "plain"

    @classmethod
    def parse(cls, text: str) -> Strategy:
        """The strategy that ``id`` printed.

        Raises :class:`UnknownStrategy` when the text does not parse. Whether the names exist is checked where the
        techniques are known.
        """
        if text.strip() in ("", "plain"):
            return cls()
        return cls(applications=tuple(_parse_term(t) for t in text.split("+")))


def _write(value: Option) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(text: str) -> Option:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _parse_term(term: str) -> Application:
    m = _TERM.match(term)
    if not m:
        raise UnknownStrategy(
            f"{term.strip()!r} is not a technique of a strategy id. Write it like "
            "model_offload+fp8_casting(transformer)+vae_tiling; `oom-doctor strategies SCRIPT` prints ids that work."
        )
    words = [w.strip() for w in (m.group(2) or "").split(",") if w.strip()]
    options = []
    for word in words:
        if "=" in word:
            key, value = (part.strip() for part in word.split("=", 1))
            options.append((key, _read(value)))
    return Application(technique=m.group(1), components=tuple(w for w in words if "=" not in w), options=tuple(options))


class StagePeak(Value):
    """Peak of one stage on the card, everything included but the context."""

    stage: Stage
    component: str | None = None
    allocated_bytes: int
    reserved_bytes: int | None = None
    seconds: float | None = None


class Estimate(Value):
    """What a strategy needs. Each figure rests on what ``rests_on`` names."""

    vram_bytes: int
    """Peak reserved on the card plus context, loading included. Where less is free than PyTorch's allocator would like to
    cache, what it then takes."""
    least_vram_bytes: int | None = None
    """What it cannot do without, caches given back: with the margin, to be compared with free memory."""
    allocated_bytes: int
    ram_bytes: int
    """Peak of anonymous + pinned host memory."""
    pinned_bytes: int = 0
    load_vram_bytes: int = 0
    load_ram_bytes: int = 0
    disk_bytes: int = 0
    seconds: float | None = None
    """One call, after loading."""
    first_seconds: float | None = None
    """The first call: compile and warm-up included."""
    transfer_seconds: float | None = None
    compute_seconds: float | None = None
    overlap_seconds: float | None = None
    """Transfers that hide behind computing: seconds = compute + transfer - overlap."""
    unpack_seconds: float | None = None
    """Part of the computing that converts stored weights for use (dequantisation, fp8 casts)."""
    compile_seconds: float | None = None
    """Compilation and autotuning, in the first call only."""
    slowdown: float | None = None
    """Against everything resident on the same card."""
    quality: Quality = Quality.IDENTICAL
    stages: tuple[StagePeak, ...] = ()
    margin_bytes: int = 0
    """Added before comparing with free memory."""
    new_packages: tuple[str, ...] = ()
    rests_on: tuple[str, ...] = ()
    leaves_out: tuple[str, ...] = ()
    fits: bool | None = None
    """None without a card to fit."""

    @property
    def needed_vram_bytes(self) -> int:
        """What the card must have free, margin left out."""
        return self.least_vram_bytes or self.vram_bytes


class StrategyOption(Value):
    """A row of the table that is shown."""

    id: str
    strategy: Strategy
    estimate: Estimate
    proof: Proof = "estimated"
    group: Literal["plain", "offloading / casting", "quantisation", "other"] = "other"
    summary: str = ""
    """One line: what it does and what it costs."""
    reasons: tuple[str, ...] = ()


class Plan(Value):
    """What ``compute_strategies`` returns."""

    strategies: tuple[StrategyOption, ...] = ()
    none_fits: bool = False
    unlock: tuple[str, ...] = ()
    """When nothing fits: the smallest changes that would, cheapest first."""
    considered: int = 0
    """Size of the space before pruning."""
    fitting: int = 0
    """How many of those that were folded fit."""
    illegal: dict[str, str] = {}
    """Technique -> why it is not offered here."""
    notes: tuple[str, ...] = ()
    pareto: tuple[StrategyOption, ...] = ()
    """On request: all that fit and that no other one beats in VRAM, seconds, quality and RAM at once."""
    subject: StrategyOption | None = None
    """The strategy that ``largest`` and ``smallest_card`` are about; it need not fit."""
    largest: tuple[LargestJob, ...] = ()
    """On request: the largest resolution, frames and batch that fit with it."""
    smallest_card: CardNeed | None = None
    formulas: tuple[Formula, ...] = ()
    """On request: the symbols of the published memory calculators."""
    spreadings: tuple[Spreading, ...] = ()
    """With several cards: the ways to use them, those that fit first."""
