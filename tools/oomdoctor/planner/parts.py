"""What one component takes as a whole under one way of holding it: the part of a strategy that needs no trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oomdoctor.planner.folding import Folder
from oomdoctor.planner.scenario import Holding
from oomdoctor.planner.weights import Weights
from oomdoctor.units import GIB, MIB

_SMALL = MIB
"""Requests up to this size come from segments of their own in PyTorch's allocator."""
PROCESS_BYTES = int(0.6 * GIB)
"""Anonymous memory of Python, torch, diffusers (0.3 GiB after their import) and of the driver in the process.

Process monitors show more (a resident FLUX run was published at 1.84 GB): they count the libraries' file pages too."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of one component, on the card, in host memory and on disk."""

    holding: Holding
    total: int
    """All of its weights in their format."""
    segments: int
    """What the allocator reserves for them."""
    placed: int
    """On the card when placing is done, before the first call."""
    quantised: int
    """Converted on the card while loading, and there until offloading takes it away."""
    largest_tensor: int
    """The full-size weight that stands beside what was converted."""
    arena: int
    """Of ``quantised``, what lies in one segment: the loaders warm the allocator up with one large request."""
    overflow: int
    """What else loading onto the card reserves: that segment is as large as the weights without their scales, so a large
    one that comes late has no room in it."""
    scattered: bool
    """Most of the scales that stay are large enough to lie in that segment, and split it."""
    leftover: int
    """What stays on the card when the weights leave it by a stream: 4-bit weights swap their codes, not their scales."""
    arrived: int
    """Anonymous host memory when loading is done."""
    loaded: int
    """And once it is converted in place, where it is."""
    native: int
    steady: int
    """Pageable host memory while running."""
    pinned: int
    disk: int
    cycles: int
    """What stays mapped from the checkpoint and is read from there in every forward."""
    transient: int
    """Host memory that is needed only until the waiting copy stands."""


@dataclass(frozen=True, slots=True)
class HostFigures:
    peak: int
    """Anonymous and pinned memory together, loading included."""
    pinned: int
    load: int
    disk: int


def part(folder: Folder, name: str, holding: Holding, anonymous: float) -> Part:
    """``anonymous``: share of the loaded weights that is anonymous memory and not mapped from the checkpoint."""
    weights = folder.index.weights[name]
    place, fmt = holding.place, holding.format
    stored, native = folder.total(name, fmt), weights.component.loaded_bytes
    loaded = _private(folder, name, holding, anonymous)
    before = loaded if holding.at_load else _before(folder, name, anonymous)
    if place.direct:
        loaded = before = max((folder.index.kinds[k].own_bytes for k in weights.kinds), default=0)
    converts = fmt.linear_only and holding.at_load and holding.on_card
    kinds = folder.index.kinds
    # What a quantiser made on the card is written to host memory when offloading takes it away.
    waiting = stored if converts else loaded
    steady = pinned = disk = transient = 0
    if place.host == "mapped" or (place.mode == "resident" and place.after_stage is None):
        pass
    elif place.mode == "resident":
        steady = loaded
    elif place.host == "disk":
        # The files are written from a full copy, one component after the other.
        disk = transient = stored
        pinned = folder.largest_group(name, holding) if place.stream else 0
    elif place.host == "pinned":
        pinned = folder.total(name, fmt, "pinned")
        if fmt.element is None and weights.component.pinned_bytes is not None:
            pinned = weights.component.pinned_bytes
        # At block level the originals are let go only when the whole component has been copied.
        transient = 0 if place.mode == "leaf" else waiting
    elif place.host == "pinned_on_demand":
        # The originals are never replaced: what was mapped from the checkpoint stays so.
        steady, pinned = waiting, _power_of_two(folder.largest_group(name, holding))
    else:
        steady = stored
    return Part(
        holding=holding,
        total=stored,
        segments=folder.total(name, fmt, "segment"),
        placed=stored if place.mode == "resident" and place.after_stage is None else 0,
        quantised=stored if converts else 0,
        largest_tensor=max(
            (kinds[k].own_bytes for k in weights.kinds if converts and fmt.converts(kinds[k])), default=0
        ),
        arena=_warmed(weights, stored) if converts else 0,
        overflow=_overflow(folder, weights, holding) if converts and weights.foreign else 0,
        scattered=_scattered(folder, weights, holding),
        leftover=folder.total(name, fmt, "scales") if converts and place.stream else 0,
        arrived=before,
        loaded=loaded,
        native=loaded if place.direct else max(native, loaded),
        steady=steady,
        pinned=pinned,
        disk=disk,
        cycles=stored - steady if place.host == "pinned_on_demand" else 0,
        transient=transient,
    )


def _warmed(weights: Weights, stored: int) -> int:
    """The segment that loading onto the card begins with: transformers asks for the size of the converted model,
    diffusers for a quarter of its elements in 16 bits."""
    component = weights.component
    return stored if weights.foreign else min(stored, component.params // 2)


def _overflow(folder: Folder, weights: Weights, holding: Holding) -> int:
    sizes = folder.sizes(holding.format)
    # Scales are not counted when the segment is asked for.
    room = warmed = sum([sizes.codes[k] * n for k, n in weights.kinds.items()])
    beyond = 0
    for kind in weights.order:
        size = sizes.stored[kind]
        if size <= room:
            room -= size
        else:
            beyond += size
    return max(0, warmed + beyond - sum([sizes.stored[k] * n for k, n in weights.kinds.items()]))


def _scattered(folder: Folder, weights: Weights, holding: Holding) -> bool:
    scales, kinds = folder.sizes(holding.format).scales, weights.kinds
    large = sum(scales[k] * n for k, n in kinds.items() if scales[k] > _SMALL)
    return 2 * large > sum(scales[k] * n for k, n in kinds.items())


def _private(folder: Folder, name: str, holding: Holding, share: float) -> int:
    """Host memory of a loaded component that is not mapped from its checkpoint.

    A quantiser that converts while loading leaves nothing behind: it fills the card. Casting in place copies what it
    converts; another dtype than the checkpoint's copies everything.
    """
    fmt = holding.format
    before = _before(folder, name, share)
    if fmt.element is None:
        return before
    if fmt.linear_only and holding.at_load:
        return 0 if holding.on_card else folder.total(name, fmt, "converted")
    if not fmt.casts:
        return folder.total(name, fmt)
    converted = folder.total(name, fmt, "converted")
    return max(converted, min(before, folder.total(name, fmt)))


def _before(folder: Folder, name: str, share: float) -> int:
    """The same as the loader leaves it, by what was measured or else by the pipeline's share."""
    component = folder.index.weights[name].component
    known = component.anonymous_bytes
    return round(share * component.loaded_bytes) if known is None else known


def host_figures(parts: Mapping[str, Part], load_once: bool) -> HostFigures:
    """Peak host memory while loading, while copies are made and while running."""
    arriving = loading = steady = pinned = disk = transient = largest = copying = 0
    for p in parts.values():
        arriving += p.arrived
        loading += p.loaded
        steady += p.steady
        pinned += p.pinned
        disk += p.disk
        largest = max(largest, p.native)
        if p.disk:
            transient = max(transient, p.transient)
        elif p.transient:
            copying += p.pinned
    load = PROCESS_BYTES + (min(arriving, largest) if load_once else arriving)
    # Components whose blocks are pinned come first, while everything else still waits as it was loaded.
    copies = PROCESS_BYTES + max(loading + copying if copying else 0, steady + pinned + transient)
    return HostFigures(max(load, copies), pinned, load, disk)


def load_vram(parts: Mapping[str, Part], cards: int) -> int:
    """Bytes on the (fullest) card when loading and placing are done, before the first call.

    Components that are released before others are loaded are not told apart.
    """
    placed = quantised = largest = 0
    for p in parts.values():
        placed += p.placed
        quantised += p.quantised
        largest = max(largest, p.largest_tensor)
    if not quantised:
        return placed // cards
    return max(placed // cards, quantised + max(largest, unfilled(parts.values())))


def unfilled(parts: Iterable[Part]) -> int:
    """What loading onto the card reserves and leaves empty; what other components put there finds room in it."""
    there = list(parts)
    made = sum([p.quantised for p in there])
    return max([max(0, p.overflow - (made - p.quantised)) for p in there], default=0)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length() if size > 0 else 0
