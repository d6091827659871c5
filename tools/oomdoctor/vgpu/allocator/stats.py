"""The counters behind ``torch.cuda.memory_stats``.

PyTorch counts every metric three times (all, small pool, large pool) as current, peak, allocated and freed. One event
touches exactly one of the two pools, so only the peak of the total is kept besides; "allocated" of the total is the sum,
and "freed" is what was ever allocated less what is there now.
"""

from __future__ import annotations

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
    active_peak: int
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

    def settle(self) -> None:
        """Write out the metrics that the hot path does not keep itself."""
        for metric, source in (("active", "allocation"), ("active_bytes", "allocated_bytes")):
            extra = self.pending if metric == "active" else self.pending_bytes
            setattr(self, metric, getattr(self, source) + extra)

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

    def ever_added(self, metric: str) -> int:
        """How much was added since the last reset; for ``active``, the same as was allocated."""
        source = {"active": "allocation", "active_bytes": "allocated_bytes"}.get(metric, metric)
        return int(getattr(self, f"{source}_total"))


PRIVATE_SINCE = (2, 13)


def _private(pool_id: Any, three: tuple[PoolStats, PoolStats, PoolStats]) -> dict[str, int]:
    name = "_".join(map(str, pool_id if isinstance(pool_id, tuple) else (0, pool_id)))
    out = {}
    for kind, stats in zip(("small_pool", "large_pool", "all"), three, strict=True):
        key = f"reserved_bytes_by_private_pools.{name}.{kind}"
        out[f"{key}.current"] = stats.reserved_bytes
        out[f"{key}.peak"] = stats.reserved_bytes_peak
        out[f"{key}.allocated"] = stats.reserved_bytes_total
        out[f"{key}.freed"] = stats.reserved_bytes_total - stats.reserved_bytes + stats.reserved_bytes_base
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

    def as_dict(self, name: str) -> dict[str, int]:
        return {f"{name}.{field}": int(getattr(self, field)) for field in self.__slots__}


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
        self.private: dict[Any, tuple[PoolStats, PoolStats, PoolStats]] = {}
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

    def as_dict(self, max_split_size: int, torch_version: tuple[int, int]) -> dict[str, int]:
        """The flat dictionary of ``torch.cuda.memory_stats``, sorted by key as PyTorch sorts it."""
        out: dict[str, int] = {}
        for stats in (self.small, self.large, self.total):
            stats.settle()
        for metric in METRICS:
            added = 0
            freed = 0
            for name, stats in (("small_pool", self.small), ("large_pool", self.large), ("all", self.total)):
                now = int(getattr(stats, metric))
                if stats is not self.total:
                    pool_added = stats.ever_added(metric)
                    pool_freed = pool_added - now + int(getattr(stats, f"{metric}_base"))
                    added, freed = added + pool_added, freed + pool_freed
                else:
                    pool_added, pool_freed = added, freed
                key = f"{metric}.{name}"
                out[f"{key}.current"] = now
                out[f"{key}.peak"] = int(getattr(stats, f"{metric}_peak"))
                out[f"{key}.allocated"] = pool_added
                out[f"{key}.freed"] = pool_freed
        out.update(self.oversize_allocations.as_dict("oversize_allocations"))
        out.update(self.oversize_segments.as_dict("oversize_segments"))
        for name in (
            "num_alloc_retries",
            "num_ooms",
            "num_sync_all_streams",
            "num_device_alloc",
            "num_device_free",
            "num_oom_rejections",
        ):
            if name != "num_oom_rejections" or torch_version >= (2, 12):
                out[name] = int(getattr(self, name))
        out["max_split_size"] = max_split_size
        if torch_version >= PRIVATE_SINCE:
            for pool_id, three in self.private.items():
                out.update(_private(pool_id, three))
        return dict(sorted(out.items()))
