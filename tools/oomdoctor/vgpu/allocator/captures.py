"""Private pools: memory that only requests made under a pool's id use (CUDA graphs, ``torch.cuda.MemPool``)."""

from __future__ import annotations

from collections.abc import Callable

from .blocks import SMALL_LIMIT, Pool, PrivatePool
from .stats import PoolId, Stats

POOLS_ARE_NOT_CAPTURES = (2, 13)
Filter = Callable[[int], bool]


class Captures:
    """The private pools of one card, and which of them are being recorded into."""

    __slots__ = ("_stats", "_torch_version", "active", "capturing", "freeable", "pools")

    def __init__(self, stats: Stats, torch_version: tuple[int, int]) -> None:
        self._stats = stats
        self._torch_version = torch_version
        self.pools: dict[PoolId, PrivatePool] = {}
        self.freeable: dict[PoolId, PrivatePool] = {}
        self.active: list[tuple[PoolId, Filter, bool]] = []
        self.capturing = False  # events may be neither made nor asked for

    def begin(self, pool_id: PoolId, only: Filter | None, capturing: bool | None) -> None:
        """Record into a pool, made with its first use; see ``CachingAllocator.begin_pool``."""
        pool = self.pools.get(pool_id)
        if pool is None:
            self.pools[pool_id] = PrivatePool(pool_id, self._stats)
        else:
            pool.use_count += 1
        if any(known == pool_id for known, _, _ in self.active):
            raise RuntimeError("beginAllocateToPool: already recording to mempool_id")
        capturing = self._torch_version < POOLS_ARE_NOT_CAPTURES if capturing is None else capturing
        self.active.append((pool_id, only or (lambda stream: True), capturing))
        self.capturing = any(capture[2] for capture in self.active)

    def end(self, pool_id: PoolId) -> None:
        for at, (known, _, _) in enumerate(self.active):
            if known == pool_id:
                del self.active[at]
                self.capturing = any(capture[2] for capture in self.active)
                return
        raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

    def release(self, pool_id: PoolId) -> None:
        pool = self.pools[pool_id]
        pool.use_count -= 1
        if pool.use_count == 0:
            self.freeable[pool_id] = pool

    def pool_for(self, size: int, stream: int) -> Pool | None:
        """The pool that a request belongs to while pools are recorded; None: the common ones."""
        for pool_id, accepts, _ in self.active:
            if accepts(stream):
                private = self.pools[pool_id]
                return private.small if size <= SMALL_LIMIT else private.large
        return None

    @property
    def idle_bytes(self) -> int:
        """Free bytes in private pools, which PyTorch's message counts as allocated."""
        return sum(pool.small.idle_bytes + pool.large.idle_bytes for pool in self.pools.values())
