"""What ``tensor.untyped_storage()`` returns for a virtual tensor."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu.storage import Storage


class VirtualUntypedStorage:
    """The few questions that libraries ask of a storage: identity, size, device."""

    def __init__(self, storage: Storage, device: torch.device) -> None:
        self._storage = storage
        self.device = device

    def data_ptr(self) -> int:
        return self._storage.address

    def nbytes(self) -> int:
        return self._storage.nbytes

    size = nbytes

    def __len__(self) -> int:
        return self._storage.nbytes

    @property
    def _cdata(self) -> int:
        return self._storage.address

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def is_pinned(self, device: Any = None) -> bool:
        return self._storage.kind == "pinned"

    def resize_(self, nbytes: int) -> None:
        """Freeing through ``resize_(0)`` (FSDP style): the block goes back at once."""
        if nbytes == 0 and self._storage.size:
            place, storage = self._storage.place, self._storage
            storage.place = None  # type: ignore[assignment]
            place.release(storage)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VirtualUntypedStorage) and other._storage is self._storage

    def __hash__(self) -> int:
        return id(self._storage)
