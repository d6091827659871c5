"""From allocated to reserved memory: how much more PyTorch's allocator holds than tensors need.

The rule, checked against virtual runs of FLUX.1-dev, whose allocator is PyTorch's own step by step:

* A weight of 10 MiB or more has a segment of its own in steps of 2 MiB (``formats.segment_bytes``).
* Activations leave holes. Held over needed, by stage: published pairs for VAE decode in half precision 1.6-2.0 and
  for encode 1.06-1.23. A trace that knows its reserved memory replaces these shares by its own.
* What one stage leaves in the cache serves the next only in part: its segments are smaller than what a VAE asks for.
* Weights that come and go without a stream share a pool with the activations and fill part of the holes; what they
  took stays in the cache when the component is done, in segments too small for most of what follows.
* A copy stream has a pool of its own per component, which stays too. ``record_stream`` lets portions linger until the
  compute stream has passed them: as many as copying runs ahead of computing (``Folder.lingering``).
* Sending a whole component away empties the cache.
* Expandable segments leave few holes.
"""

from __future__ import annotations

from collections.abc import Iterable

from oomdoctor.planner.index import TraceIndex
from oomdoctor.values import Stage

_HELD = {Stage.VAE_DECODE: 1.9, Stage.VAE_ENCODE: 1.2}
_HELD_OTHERWISE = 1.15
_FILLED = 0.35
"""Share of the holes that stays open when freed weights fill them."""
_EXPANDABLE, _EXPANDABLE_SHARED = 1.03, 1.2
"""Weights of all sizes that come and go between the activations leave holes in one growing segment too."""
_KEPT = 0.6
_KEPT_SHARED = 0.3
"""Share of what a stage held that a later, larger one cannot use: resident weights, and weights in the same pool."""
_STUCK = 0.95
_SERVES = 0.1
"""A freed weight of this share of a stage's activations is large enough to be given out to it again."""


def stuck_bytes(left: Iterable[tuple[int, int]], activation: int) -> int:
    """What other components' weights leave in the shared pool that a stage with so much activation cannot use.

    ``left``: bytes, and the largest single layer of them.
    """
    return round(sum(_STUCK * size for size, layer in left if layer < _SERVES * activation))


class HeldShares:
    """Reserved over allocated for the activations of every table."""

    def __init__(self, index: TraceIndex, weight_segments: int) -> None:
        self.measured = any(t.reserved for t in index.tables)
        self._shares = _shares(index, weight_segments)

    def need(self, table: int, activation: int, weights: int, expandable: bool) -> int:
        """What a stage's activations make the allocator hold. ``weights``: portions that share the pool."""
        if expandable:
            return round(activation * (_EXPANDABLE_SHARED if weights else _EXPANDABLE))
        share = self._shares[table]
        if weights and activation:
            share = 1.0 + (share - 1.0) * max(_FILLED, 1.0 - 2.0 * weights / activation)
        return round(activation * share)

    @staticmethod
    def after(held: int, need: int, shared: bool, expandable: bool) -> int:
        """What is held once a stage that needs so much has followed one that left ``held``."""
        if expandable:
            return max(held, need)
        return max(held, need + round((_KEPT_SHARED if shared else _KEPT) * min(held, need)))


def _shares(index: TraceIndex, weight_segments: int) -> list[float]:
    """By table. What earlier stages left in the cache is taken off before dividing."""
    out: list[float] = []
    before = 0
    for table in index.tables:
        held = table.reserved - weight_segments
        own = held - _KEPT * before
        if held > before and own > table.peak > 0:
            out.append(min(own / table.peak, 3.0))
        else:
            out.append(_HELD.get(table.stage, _HELD_OTHERWISE))
        before = max(before, held)
    return out
