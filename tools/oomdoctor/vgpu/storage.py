"""A storage handle: the memory behind one or more virtual tensors, freed with the last of them."""

from __future__ import annotations

from typing import Any, Protocol

WEIGHTS = "weights"
ACTIVATIONS = "activations"


class Place(Protocol):
    """Where storages live: a card or the host."""

    def take(self, nbytes: int, kind: str) -> Storage: ...
    def release(self, storage: Storage) -> None: ...
    def retag(self, storage: Storage, kind: str, owner: str) -> None: ...


class Storage:
    """Bytes on a place. ``size`` is what the place really set aside, ``nbytes`` what was asked for.

    ``concrete`` tells whether the tensors on it carry real values; one write without values makes all views
    value-less at once.
    """

    __slots__ = (
        "__weakref__",
        "address",
        "block",
        "concrete",
        "kind",
        "nbytes",
        "owner",
        "path",
        "place",
        "size",
        "weights_of",
    )

    def __init__(self, place: Place, block: Any, nbytes: int, size: int, kind: str, owner: str, address: int) -> None:
        self.place = place
        self.block = block
        self.nbytes = nbytes
        self.size = size
        self.kind = kind
        self.owner = owner
        self.path = ""
        """Module within the owner that took it; for reports."""
        self.address = address
        self.concrete = False
        self.weights_of = ""
        """Component whose weights these bytes are; copies of weights inherit it."""

    def __del__(self) -> None:
        place = getattr(self, "place", None)
        if place is not None:
            place.release(self)

    def mark_weights(self, component: str) -> None:
        """From now on these bytes count as weights of ``component``."""
        if self.weights_of != component:
            self.weights_of = component
            self.place.retag(self, WEIGHTS, component)
