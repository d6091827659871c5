"""The counters behind ``torch.cuda.memory_stats``.

PyTorch counts every metric three times (all, small pool, large pool) as current, peak, allocated and freed. One event
touches exactly one of the two pools, so only the peak of the total is kept besides; "allocated" of the total is the sum,
and "freed" is what was ever allocated less what is there now.
"""

from __future__ import annotations

from itertools import chain
from operator import attrgetter
from typing import Any

METRICS = (
    "allocation",
    "allocated_bytes",
    "active",
    "active_bytes",
    "requested_bytes",
    "segment",
    "reserved_bytes",
    "inactive_split",
    "inactive_split_bytes",
)
_FIELDS = tuple(f"{metric}{suffix}" for metric in METRICS for suffix in ("", "_peak", "_total", "_base"))


class PoolStats:
    """Counters of one pool. ``x``: now; ``x_peak``; ``x_total``: ever added; ``x_base``: ``x`` at the last reset.

    ``active`` follows ``allocation`` plus ``pending``: blocks that were freed but still wait for another stream.
    """

    __slots__ = (*_FIELDS, "pending", "pending_bytes")

    allocation: int
    allocation_peak: int
    allocation_total: int
    allocated_bytes: int
    allocated_bytes_peak: int
    allocated_bytes_total: int
    active: int
    active_peak: int
    active_bytes: int
    active_bytes_peak: int
    requested_bytes: int
    requested_bytes_peak: int
    requested_bytes_total: int
    segment: int
    segment_peak: int
    segment_total: int
    reserved_bytes: int
    reserved_bytes_peak: int
    reserved_bytes_total: int
    reserved_bytes_base: int
    inactive_split: int
    inactive_split_peak: int
    inactive_split_total: int
    inactive_split_bytes: int
    inactive_split_bytes_peak: int
    inactive_split_bytes_total: int
    pending: int
    pending_bytes: int

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    def add_block(self, size: int, requested: int) -> None:
        """Count a block that was handed out. The hottest lines of the allocator: no ``max``, no loop."""
        self.allocation = now = self.allocation + 1
        if now > self.allocation_peak:
            self.allocation_peak = now
            if now > self.active_peak:
                self.active_peak = now
        self.allocated_bytes = now = self.allocated_bytes + size
        if now > self.allocated_bytes_peak:
            self.allocated_bytes_peak = now
            if now > self.active_bytes_peak:
                self.active_bytes_peak = now
        self.requested_bytes = now = self.requested_bytes + requested
        if now > self.requested_bytes_peak:
            self.requested_bytes_peak = now

    def settle(self) -> None:
        """Write out the metrics that the hot path does not keep itself."""
        self.active = self.allocation + self.pending
        self.active_bytes = self.allocated_bytes + self.pending_bytes

    def add_active(self) -> None:
        """Update the peaks of ``active`` while blocks are pending."""
        self.active_peak = max(self.active_peak, self.allocation + self.pending)
        self.active_bytes_peak = max(self.active_bytes_peak, self.allocated_bytes + self.pending_bytes)

    def add_segment(self, size: int) -> None:
        self.segment += 1
        self.segment_total += 1
        self.segment_peak = max(self.segment_peak, self.segment)
        self.add_reserved(size)

    def add_reserved(self, size: int) -> None:
        self.reserved_bytes += size
        self.reserved_bytes_total += size
        self.reserved_bytes_peak = max(self.reserved_bytes_peak, self.reserved_bytes)

    def add_split(self, count: int, size: int) -> None:
        """Count inactive split blocks; negative figures are removals."""
        self.inactive_split += count
        if count > 0:
            self.inactive_split_total += count
            self.inactive_split_peak = max(self.inactive_split_peak, self.inactive_split)
        self.inactive_split_bytes += size
        if size > 0:
            self.inactive_split_bytes_total += size
            self.inactive_split_bytes_peak = max(self.inactive_split_bytes_peak, self.inactive_split_bytes)

    def reset_peaks(self) -> None:
        self.settle()
        for metric in METRICS:
            setattr(self, f"{metric}_peak", getattr(self, metric))

    def reset_totals(self) -> None:
        self.settle()
        for metric in METRICS:
            setattr(self, f"{metric}_total", 0)
            setattr(self, f"{metric}_base", getattr(self, metric))


PoolId = tuple[int, int]
"""What names a private pool: CUDA graphs count up the second number, pools made by hand the first."""
PRIVATE_SINCE = (2, 13)
REJECTIONS_SINCE = (2, 12)
_NUMBERS = (
    "num_alloc_retries",
    "num_ooms",
    "num_sync_all_streams",
    "num_device_alloc",
    "num_device_free",
    "num_oom_rejections",
)
_POOLS = ("small_pool", "large_pool", "all")
_PARTS = ("current", "peak", "allocated", "freed")
_KEYS = tuple(f"{metric}.{pool}.{part}" for metric in METRICS for pool in _POOLS for part in _PARTS)
_SAME_TOTAL = {"active": "allocation", "active_bytes": "allocated_bytes"}
# Of each metric: now, the peak, what was ever added (for "active" the same as was allocated), and the base.
_READ = attrgetter(
    *(
        name
        for metric in METRICS
        for name in (metric, f"{metric}_peak", f"{_SAME_TOTAL.get(metric, metric)}_total", f"{metric}_base")
    )
)


def _private(three: tuple[PoolStats, PoolStats, PoolStats]) -> dict[str, dict[str, int]]:
    out = {}
    for pool, stats in zip(_POOLS, three, strict=True):
        freed = stats.reserved_bytes_total - stats.reserved_bytes + stats.reserved_bytes_base
        figures = (stats.reserved_bytes, stats.reserved_bytes_peak, stats.reserved_bytes_total, freed)
        out[pool] = dict(zip(_PARTS, figures, strict=True))
    return out


class Counter:
    """One statistic without pools (the oversize ones)."""

    __slots__ = ("allocated", "current", "freed", "peak")

    def __init__(self) -> None:
        self.current = self.peak = self.allocated = self.freed = 0

    def add(self, amount: int) -> None:
        self.current += amount
        self.allocated += amount
        self.peak = max(self.peak, self.current)

    def remove(self, amount: int) -> None:
        self.current -= amount
        self.freed += amount

    def reset_peak(self) -> None:
        self.peak = self.current

    def reset_total(self) -> None:
        self.allocated = self.freed = 0

    def as_dict(self) -> dict[str, int]:
        return {part: int(getattr(self, part)) for part in _PARTS}


class Stats:
    """All counters of one device."""

    __slots__ = (
        "large",
        "num_alloc_retries",
        "num_device_alloc",
        "num_device_free",
        "num_oom_rejections",
        "num_ooms",
        "num_sync_all_streams",
        "oversize_allocations",
        "oversize_segments",
        "private",
        "small",
        "total",
    )

    def __init__(self) -> None:
        self.small, self.large, self.total = PoolStats(), PoolStats(), PoolStats()
        # Reserved bytes of private pools (small, large, both), from their first segment on.
        self.private: dict[PoolId, tuple[PoolStats, PoolStats, PoolStats]] = {}
        self.oversize_allocations, self.oversize_segments = Counter(), Counter()
        self.num_alloc_retries = self.num_ooms = self.num_sync_all_streams = 0
        self.num_device_alloc = self.num_device_free = self.num_oom_rejections = 0

    def _each(self) -> list[PoolStats]:
        return [self.small, self.large, self.total, *(stats for three in self.private.values() for stats in three)]

    def reset_peaks(self) -> None:
        for stats in self._each():
            stats.reset_peaks()
        self.oversize_allocations.reset_peak()
        self.oversize_segments.reset_peak()

    def reset_totals(self) -> None:
        for stats in self._each():
            stats.reset_totals()
        self.num_alloc_retries = self.num_ooms = self.num_sync_all_streams = 0
        self.num_device_alloc = self.num_device_free = self.num_oom_rejections = 0
        self.oversize_allocations.reset_total()
        self.oversize_segments.reset_total()

    def _figures(self) -> list[tuple[int, int, int, int]]:
        """Now, peak, ever added and ever removed: of each metric for the small pool, the large pool and both."""
        pools = (self.small, self.large, self.total)
        for stats in pools:
            stats.settle()
        small, large, total = map(_READ, pools)
        out = []
        for at in range(0, len(small), 4):
            now, peak, added, base = small[at : at + 4]
            freed = added - now + base
            out.append((now, peak, added, freed))
            now, peak, more, base = large[at : at + 4]
            gone = more - now + base
            out.append((now, peak, more, gone))
            out.append((total[at], total[at + 1], added + more, freed + gone))
        return out

    def _numbers(self, max_split_size: int, torch_version: tuple[int, int]) -> dict[str, int]:
        out = {name: int(getattr(self, name)) for name in _NUMBERS}
        if torch_version < REJECTIONS_SINCE:
            del out["num_oom_rejections"]
        out["max_split_size"] = max_split_size
        return out

    def as_dict(self, max_split_size: int, torch_version: tuple[int, int]) -> dict[str, int]:
        """The flat dictionary of ``torch.cuda.memory_stats``; PyTorch sorts it by key, this one is not sorted."""
        out = dict(zip(_KEYS, chain.from_iterable(self._figures()), strict=True))
        for name in ("oversize_allocations", "oversize_segments"):
            out.update({f"{name}.{part}": value for part, value in getattr(self, name).as_dict().items()})
        out.update(self._numbers(max_split_size, torch_version))
        if torch_version >= PRIVATE_SINCE:
            for pool_id, three in self.private.items():
                name = "reserved_bytes_by_private_pools." + "_".join(map(str, pool_id))
                for pool, parts in _private(three).items():
                    out.update({f"{name}.{pool}.{part}": value for part, value in parts.items()})
        return out

    def as_nested_dict(self, max_split_size: int, torch_version: tuple[int, int]) -> dict[str, Any]:
        """The dictionary of ``torch.cuda.memory_stats_as_nested_dict``."""
        figures = iter(self._figures())
        out: dict[str, Any] = {
            metric: {pool: dict(zip(_PARTS, next(figures), strict=True)) for pool in _POOLS} for metric in METRICS
        }
        out["oversize_allocations"] = self.oversize_allocations.as_dict()
        out["oversize_segments"] = self.oversize_segments.as_dict()
        out.update(self._numbers(max_split_size, torch_version))
        if torch_version >= PRIVATE_SINCE:
            out["reserved_bytes_by_private_pools"] = {
                pool_id: _private(three) for pool_id, three in self.private.items()
            }
        return out
