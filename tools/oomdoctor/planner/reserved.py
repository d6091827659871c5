"""From allocated to reserved memory: how much more PyTorch's allocator holds than tensors need.

The rule, checked against virtual runs of FLUX.1-dev, whose allocator is PyTorch's own step by step:

* A weight of 10 MiB or more has a segment of its own in steps of 2 MiB (``formats.segment_bytes``).
* Activations leave holes. Held over needed, by stage: published pairs for VAE decode in half precision 1.6-2.0 and
  for encode 1.06-1.23. A trace that knows its reserved memory replaces these shares by its own.
* What one stage leaves in the cache serves the next only in part, where its segments are smaller than what that asks
  for. A trace shows how much was used again: what was alive and had not been reserved since the stage began.
* Weights that come and go without a stream share a pool with the activations and fill part of the holes; what they
  took stays in the cache when the component is done, in segments too small for most of what follows.
* A copy stream has a pool of its own per component, which stays too. ``record_stream`` lets portions linger until the
  compute stream has passed them: as many as copying runs ahead of computing (``Folder.lingering``).
* Sending a whole component away empties the cache.
* A large segment that is free serves what comes next as expandable segments do, as far as it reaches: the loaders'
  warm-up makes one as large as a model that is quantised on the card, a freed embedding another. How much of one range
  a stage takes is measured (``Table.arena``).
* Expandable segments leave few holes between many middling tensors, but nearly as many between the few huge ones of a
  VAE (virtual runs: SDXL's steps 1.26 instead of 1.7 times what is needed, CogVideoX's VAE 1.39 either way); and what
  one stage leaves in them serves the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from oomdoctor.planner.index import TraceIndex
from oomdoctor.values import Stage

_HELD = {Stage.VAE_DECODE: 1.9, Stage.VAE_ENCODE: 1.2}
_HELD_OTHERWISE = 1.15
_FILLED = 0.35
"""Share of the holes that stays open when freed weights fill them."""
_EXPANDABLE, _EXPANDABLE_HUGE = 0.35, 0.85
"""Share of the holes that expandable segments leave, between middling and between huge tensors."""
_KEPT = 0.6
"""Share of what a stage held that a later, larger one cannot use, where no trace tells."""
_SURE = 0.85
"""Of what a trace does not show to be used again, the share that really is not."""
_SHARED = 0.5
"""The same, where weights that came and went left segments of all sizes in the pool."""
_STUCK = 0.95
CONVERTED = 0.75
"""Of weights in many small segments that were made on the card and sent away, the share that later stages cannot use
(virtual runs of 4-bit weights: Qwen-Image 0.85, Stable Diffusion 1.5 0.6)."""
_FINER = 0.5
"""Power of the share that is left of a video's activations: how much better its pieces find places."""
_SERVES = 0.1
"""A freed weight of this share of a stage's activations is large enough to be given out to it again."""


def stuck_bytes(left: Iterable[tuple[int, int]], activation: int) -> int:
    """What other components' weights leave in the shared pool that a stage with so much activation cannot use.

    ``left``: bytes, and the largest single layer of them.
    """
    return round(sum(_STUCK * size for size, layer in left if layer < _SERVES * activation))


def largest_freed(left: Iterable[tuple[int, int]], activation: int) -> int:
    """The largest segment among what other components' weights left, where it can serve the stage."""
    return max([min(size, layer) for size, layer in left if layer >= _SERVES * activation], default=0)


class HeldShares:
    """Reserved over allocated for the activations of every table."""

    def __init__(self, index: TraceIndex, weight_segments: int) -> None:
        self.measured = any(t.reserved for t in index.tables)
        self._huge = [t.stage in _HELD for t in index.tables]
        self._peaks = [t.peak for t in index.tables]
        self._shares, self._kept = _shares(index, weight_segments)
        self._needs: dict[tuple[int, int, int, bool], int] = {}
        self._ranges = [t.arena / t.peak if t.arena > t.peak > 0 else None for t in index.tables]

    def need(self, table: int, activation: int, weights: int, expandable: bool) -> int:
        """What a stage's activations make the allocator hold. ``weights``: portions that share the pool."""
        key = (table, activation, weights, expandable)
        known = self._needs.get(key)
        if known is None:
            known = self._needs[key] = self._need(table, activation, weights, expandable)
        return known

    def _need(self, table: int, activation: int, weights: int, expandable: bool) -> int:
        if expandable:
            return self.range_of(table, activation)
        share = self._shares[table]
        if weights and activation:
            share = 1.0 + (share - 1.0) * max(_FILLED, 1.0 - 2.0 * weights / activation)
        # What was measured holds for what was there: unpacked copies of weights come and go one after the other.
        beside = max(0, activation - self._peaks[table])
        return round((activation - beside) * share + beside * min(share, _HELD_OTHERWISE))

    def range_of(self, table: int, activation: int) -> int:
        """How large one empty segment must be to serve the stage."""
        measured = self._ranges[table]
        if measured is not None:
            return round(activation * measured)
        holes = _EXPANDABLE_HUGE if self._huge[table] else _EXPANDABLE
        return round(activation * (1.0 + holes * (self._shares[table] - 1.0)))

    def after(self, table: int, held: int, need: int, shared: bool, cut: float = 1.0) -> int:
        """What is held once a stage that needs so much has followed one that left ``held``. ``cut``: share that is left of
        a video's activations; blocks of a few frames are of the sizes of the denoiser's and find places in what was left
        (virtual runs of LTX-Video and HunyuanVideo; tiles of single pictures do not)."""
        kept = self._kept[table] * (_SHARED if shared else 1.0)
        if cut < 1.0:
            kept *= math.pow(cut, _FINER)
        wanted = need + round(kept * (held if held < need else need))
        return wanted if wanted > held else held


def _shares(index: TraceIndex, weight_segments: int) -> tuple[list[float], list[float]]:
    """By table: held over needed, and the share of the cache before it that it cannot use.

    What earlier stages left in the cache is taken off before dividing.
    """
    shares: list[float] = []
    kept: list[float] = []
    before = 0
    for table in index.tables:
        held = table.reserved - weight_segments
        reused = index.reused.get(table.stage)
        known = reused is not None and before > 0
        unused = _SURE * max(0.0, 1.0 - (reused or 0) / before) if known else _KEPT
        # The other way round than :meth:`HeldShares.after`: what need makes the held of the trace out of the one before.
        # Between the modules there are a few large tensors, whatever the stage.
        usual = round(
            table.peak * (_HELD_OTHERWISE if table.component is None else _HELD.get(table.stage, _HELD_OTHERWISE))
        )
        if held <= before:
            own = min(usual, round(before / (1.0 + unused)))
        else:
            own = max(held - round(unused * before), round(held / (1.0 + unused)))
        own = max(own, table.peak)
        if before:
            # What the trace held is right, so what was kept from it gives way.
            unused = min(unused, max(0.0, max(held, before) - own) / max(1, min(before, own)))
        shares.append(min(own / table.peak, 3.0) if table.peak else 1.0)
        kept.append(unused)
        before = max(before, held)
    return shares, kept
