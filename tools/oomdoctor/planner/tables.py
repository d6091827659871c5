"""The digest of a trace: what happened per stage and component, by situation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from oomdoctor.values import Stage


@dataclass(slots=True)
class Situation:
    """All intervals of a table in which the same modules are on the stack."""

    peak: int = 0
    live: int = 0
    """Activation at the start of the interval: what is there while weights are moved or cast."""
    seconds: float = 0.0


@dataclass(slots=True)
class Step:
    """Time that passes while one group computes and the next may be fetched."""

    seconds: float = 0.0
    count: int = 0


class Turn(NamedTuple):
    """A module with weights is entered in the course of a forward."""

    kind: int
    seconds: float
    """Until the next one is."""
    launches: int
    """Kernels until then."""


LAUNCHES = 6
"""Kernels by module with weights where a trace does not count them; the transformers of diffusers launch 5 to 6."""

LeafKey = tuple[tuple[int, ...], int]
"""Kinds of the modules on the stack that hold weights, and the kind of the next one to be entered (-1: none)."""
BlockKey = tuple[int, int]
"""Number of the running block (-1: outside blocks) and of the next block (-1: none)."""


@dataclass(slots=True)
class Table:
    """Everything that happened in one stage while one component (or none) was active."""

    stage: Stage
    component: str | None
    base: int
    """Activation alive when the table was first entered: inputs that other stages made."""
    peak: int = 0
    seconds: float = 0.0
    leaves: dict[LeafKey, Situation] = field(default_factory=dict)
    blocks: dict[BlockKey, Situation] = field(default_factory=dict)
    leaf_steps: dict[int, Step] = field(default_factory=dict)
    """Kind that is fetched meanwhile -> time."""
    block_steps: dict[int, Step] = field(default_factory=dict)
    leaf_entries: Counter[int] = field(default_factory=Counter)
    """Kind -> how often a module of it was entered in the whole run."""
    block_entries: Counter[int] = field(default_factory=Counter)
    made: dict[int, int] = field(default_factory=dict)
    """Kind -> bytes that a module of it gave out at most: what is alive when it ends beyond when it began."""
    forwards: int = 0
    block_output: int = 0
    """Activation alive when a block begins, beyond ``base``: what one block hands to the next."""
    turns: list[Turn] = field(default_factory=list)
    """One forward in its order."""

    @property
    def portions(self) -> int:
        """How often the modules of a forward are gone through in one call; 1 where nothing is known."""
        return round(sum(self.leaf_entries.values()) / len(self.turns)) if self.turns else 1

    reserved: int = 0
    """Highest reserved memory seen, weights included; 0 when the trace does not say."""
    arena: int = 0
    """How large a single empty segment would have to be to serve the table's activations; 0 when it does not say."""


@dataclass(slots=True)
class Phase:
    """A stretch of the run with one active component, in the order of time."""

    table: int
    component: str | None
    loads: int
    """How many times the run comes to the component from another one here (0: it was active already)."""
    repeats: int = 0
    """How often the first of the merged forwards stands for."""


_Key = TypeVar("_Key", LeafKey, BlockKey)


def add_to(situations: dict[_Key, Situation], key: _Key, peak: int, live: int, seconds: float) -> None:
    situation = situations.get(key)
    if situation is None:
        situations[key] = Situation(peak, live, seconds)
        return
    if peak > situation.peak:
        situation.peak = peak
    if live > situation.live:
        situation.live = live
    situation.seconds += seconds


def spend(steps: dict[int, Step], key: int, seconds: float, count: int) -> None:
    step = steps.get(key)
    if step is None:
        steps[key] = Step(seconds, count)
    else:
        step.seconds += seconds
        step.count += count
