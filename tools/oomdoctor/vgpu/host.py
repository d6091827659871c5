"""Host memory, counted in three kinds that end differently: anonymous, mapped and pinned.

* ``anonymous``: private pages (a cast, a copy, a tensor made on the CPU). Cannot be dropped; counts towards a kill.
* ``mapped``: file pages of a memory-mapped checkpoint. The kernel drops them under pressure; never kills.
* ``pinned``: page-locked, rounded as PyTorch's host allocator rounds. Counts towards a kill, cannot be swapped.

Freed anonymous memory is taken as returned at once: glibc unmaps blocks of this size (M_MMAP_THRESHOLD).
"""

from __future__ import annotations

from typing import Any

from oomdoctor.vgpu.storage import Storage

ANONYMOUS, MAPPED, PINNED = "anonymous", "mapped", "pinned"


class HostExhausted(BaseException):
    """Anonymous + pinned memory passed the limit: where Linux would kill the process.

    Not an ``Exception``: a script cannot catch SIGKILL either.
    """

    def __init__(self, requested: int, in_use: int, limit: int) -> None:
        super().__init__(f"host memory: {requested} bytes more on top of {in_use} pass the limit of {limit}")
        self.requested, self.in_use, self.limit = requested, in_use, limit


class HostMemory:
    """The machine's RAM as this process uses it."""

    def __init__(self, limit_bytes: int | None, base_bytes: int, pinned_allocator: Any) -> None:
        self.limit = limit_bytes
        self.base = base_bytes
        """Interpreter and imported libraries, anonymous; a measured constant of the caller."""
        self.by_kind = {ANONYMOUS: 0, MAPPED: 0, PINNED: 0}
        self.peak = base_bytes
        self.peak_mapped = 0
        self.peak_pinned = 0
        self._pinned = pinned_allocator
        self._next_address = 1 << 40

    @property
    def in_use(self) -> int:
        """Anonymous + pinned + the process itself, bytes."""
        return self.base + self.by_kind[ANONYMOUS] + self.by_kind[PINNED]

    def take(self, nbytes: int, kind: str = ANONYMOUS) -> Storage:
        block = None
        size = nbytes
        if kind == PINNED:
            before = self._pinned.pinned
            block = self._pinned.malloc(nbytes)
            self.by_kind[PINNED] += self._pinned.pinned - before
            self.peak_pinned = max(self.peak_pinned, self.by_kind[PINNED])
        else:
            self.by_kind[kind] += nbytes
        if kind == MAPPED:
            self.peak_mapped = max(self.peak_mapped, self.by_kind[MAPPED])
        else:
            used = self.in_use
            if used > self.peak:
                self.peak = used
                if self.limit is not None and used > self.limit:
                    raise HostExhausted(nbytes, used - nbytes, self.limit)
        self._next_address += (nbytes + 4095) // 4096 * 4096 + 4096
        return Storage(self, block, nbytes, size, kind, "", self._next_address)

    def release(self, storage: Storage) -> None:
        if storage.kind == PINNED:
            # PyTorch's host allocator caches what is freed, unless it is told to keep less.
            self._pinned.free(storage.block)
            self.by_kind[PINNED] = self._pinned.pinned
        else:
            self.by_kind[storage.kind] -= storage.size

    def retag(self, storage: Storage, kind: str, owner: str) -> None:
        """Host memory is counted by how it is held, not by what it holds: only the owner is noted."""
        storage.owner = owner

    def pinned_stats(self) -> dict[str, int]:
        """``torch.cuda.host_memory_stats``, without its timings."""
        return dict(self._pinned.memory_stats())

    def empty_pinned_cache(self) -> None:
        """``torch._C._host_emptyCache``: unused page-locked blocks go back to the system."""
        self._pinned.empty_cache()
        self.by_kind[PINNED] = self._pinned.pinned
