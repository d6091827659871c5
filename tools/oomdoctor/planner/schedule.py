"""Which components are on the card at each point of the run, when some of them come and go as a whole.

Model offloading puts the components on a chain. When one starts, its predecessor on the chain is sent away (and the
cache emptied) before it is brought in; any other one that is there stays. That is how a second prompt encoding leaves
the last text encoder beside the first one. What is not on the chain comes at its first use and stays to the end.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field

from oomdoctor.planner.index import TraceIndex
from oomdoctor.values import Stage


@dataclass(frozen=True, slots=True)
class Moment:
    """A table of the trace together with who is there."""

    table: int
    present: frozenset[str]
    """Whole components that are on the card, of those that come and go."""
    gone: frozenset[str]
    """Resident components that were released for good, or have not come yet."""


@dataclass(slots=True)
class Schedule:
    """The distinct moments of a run in the order of their first occurrence, and what was moved as a whole."""

    moments: list[Moment] = field(default_factory=list)
    onloads: Counter[str] = field(default_factory=Counter)
    offloads: Counter[str] = field(default_factory=Counter)
    first_stage: dict[str, Stage] = field(default_factory=dict)
    """Component that is moved as a whole -> the stage in which it first is."""
    flushes: frozenset[int] = frozenset()
    """Positions in ``moments`` before which the allocator's cache was emptied."""


def schedule(
    index: TraceIndex, moving: frozenset[str], releases: dict[str, Stage], arrivals: dict[str, Stage]
) -> Schedule:
    """Walks the phases of the run.

    ``moving``: components that come and go as a whole. ``releases``: component -> stage after which it is dropped.
    ``arrivals``: component -> stage until the end of which it waits on the host, to stay on the card from then on.
    """
    chain = [name for name in index.order if name in moving]
    predecessor = {after: before for before, after in itertools.pairwise(chain)}
    leaves_at = {name: _release_phase(index, name, stage) for name, stage in releases.items()}
    arrives_at = {name: _end_of(index, stage) for name, stage in arrivals.items()}
    out = Schedule(onloads=Counter(dict.fromkeys(arrivals, 1)))
    seen: dict[Moment, int] = {}
    present: set[str] = set()
    flushed = False
    flushes: set[int] = set()
    for number, phase in enumerate(index.phases):
        gone = {name for name, at in leaves_at.items() if number > at}
        if gone & present:
            present -= gone
            flushed = True
        name = phase.component
        if name in moving and phase.loads:
            before = predecessor.get(name)
            if before in present:
                present.discard(before)
                out.offloads[before] += phase.loads
                flushed = True
            if name not in present:
                present.add(name)
                out.onloads[name] += phase.loads
                out.first_stage.setdefault(name, index.tables[phase.table].stage)
        gone |= {n for n, at in arrives_at.items() if number <= at and n != name}
        moment = Moment(phase.table, frozenset(present), frozenset(gone))
        if moment not in seen:
            seen[moment] = len(out.moments)
            if flushed:
                flushes.add(len(out.moments))
            out.moments.append(moment)
        flushed = False
    for name in arrivals:
        following = min(arrives_at[name] + 1, len(index.phases) - 1)
        out.first_stage[name] = index.tables[index.phases[following].table].stage
    for name in present:
        out.offloads[name] += 1
    out.flushes = frozenset(flushes)
    return out


def _release_phase(index: TraceIndex, component: str, stage: Stage) -> int:
    """The last phase of the stage, but never before the component ran for the last time."""
    return max(_end_of(index, stage), index.last_phase(component))


def _end_of(index: TraceIndex, stage: Stage) -> int:
    return max((n for n, p in enumerate(index.phases) if index.tables[p.table].stage == stage), default=-1)
