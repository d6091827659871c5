"""From allocated to reserved memory: how much more PyTorch's allocator holds than tensors need.

The rule, and what it rests on:

* A weight of 10 MiB or more has a segment of its own in steps of 2 MiB (``formats.segment_bytes``).
* Activations leave holes. Held over needed, by stage: published pairs for VAE decode in half precision 1.6-2.0 and
  for encode 1.06-1.23; for the transformer loop of a resident FLUX about 1.15. A trace that knows its reserved memory
  replaces these shares by its own.
* Weights that come and go without a stream share a pool with activations, so a freed weight's segment serves the
  next activation: most of the holes close (Z-Image at leaf level: 3.2 GiB held for 2.4 needed in the decode).
* A copy stream has a pool of its own per component, which stays when the component is done. ``record_stream`` lets
  freed portions linger until the compute stream has passed them: published runs hold about twice the pool.
* Sending a whole component away empties the cache.
* Expandable segments leave few holes.
"""

from __future__ import annotations

from oomdoctor.planner.index import TraceIndex
from oomdoctor.planner.tables import Table
from oomdoctor.values import Stage

_HELD = {Stage.VAE_DECODE: 1.9, Stage.VAE_ENCODE: 1.2}
_HELD_OTHERWISE = 1.15
_SHARED_POOL = 0.35
"""Share of the holes that stays open when freed weights fill them."""
_EXPANDABLE = 1.03
RECORD_STREAM_POOLS = 2.0


class HeldShares:
    """Reserved over allocated for the activations of every table."""

    def __init__(self, index: TraceIndex, weight_segments: int) -> None:
        self.measured = any(t.reserved for t in index.tables)
        self._shares = [_share(t, weight_segments) for t in index.tables]

    def of(self, table: int, shared: bool, expandable: bool) -> float:
        if expandable:
            return _EXPANDABLE
        share = self._shares[table]
        return 1.0 + (share - 1.0) * _SHARED_POOL if shared else share


def _share(table: Table, weight_segments: int) -> float:
    held = table.reserved - weight_segments
    if table.reserved and held > 0 and table.peak > 0:
        return min(max(held / table.peak, 1.0), 3.0)
    return _HELD.get(table.stage, _HELD_OTHERWISE)
