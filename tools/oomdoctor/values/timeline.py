"""What a run did to a card's memory over time: for reports and pictures, never for planning."""

from __future__ import annotations

from oomdoctor.values.base import Stage, Value


class Alive(Value):
    """One entry of what was on the card at a moment."""

    kind: str
    """``weights``, ``activations``, ``attention``, ``workspace``, ``cached`` (reserved by the allocator, in no use)."""
    component: str = ""
    path: str = ""
    """Module within the component that took it; empty: the component as a whole; ``...``: the rest of it."""
    bytes: int


class Moment(Value):
    """A moment of a run: its peak, or where it ended."""

    stage: Stage
    component: str | None = None
    path: str | None = None
    """Module that ran."""
    seconds: float | None = None
    """On the card's clock, from the start of the run."""
    line: int | None = None
    """Line of the script."""
    allocated_bytes: int
    reserved_bytes: int | None = None
    requested_bytes: int | None = None
    """What was asked for when it ended for want of memory."""
    alive: tuple[Alive, ...] = ()
    """Largest first."""


class Stretch(Value):
    """Consecutive time in one stage of one component."""

    stage: Stage
    component: str | None = None
    start: float
    end: float


class CallSpan(Value):
    """One forward of a component (empty path) or of one of its blocks."""

    component: str
    path: str = ""
    start: float
    end: float


class MemoryTimeline(Value):
    """Memory of a card over a run, as equally long columns; the highs and lows are kept, what lies between is thinned."""

    seconds: tuple[float, ...] = ()
    allocated_bytes: tuple[int, ...] = ()
    reserved_bytes: tuple[int, ...] = ()
    weights_bytes: tuple[int, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    spans: tuple[CallSpan, ...] = ()
