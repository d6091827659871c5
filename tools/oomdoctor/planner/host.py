"""What a scenario takes in host memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oomdoctor.planner.scenario import Scenario
from oomdoctor.units import GIB

if TYPE_CHECKING:
    from oomdoctor.planner.folding import Folder
    from oomdoctor.values import Measurement

PROCESS_BYTES = int(1.8 * GIB)
"""Python, torch, diffusers and the driver's own host memory: a resident FLUX run was published at 1.84 GB."""


@dataclass(frozen=True, slots=True)
class HostFigures:
    peak: int
    """Anonymous and pinned memory together, loading included."""
    pinned: int
    load: int
    disk: int


def host_figures(folder: Folder, measurement: Measurement, scenario: Scenario) -> HostFigures:
    """Peak host memory while loading, while pinning and while running."""
    anonymous = _anonymous_share(measurement)
    steady = pinned = disk = loading = 0
    transient = largest = 0
    for name, weights in folder.index.weights.items():
        holding = scenario.holding(name)
        place, fmt = holding.place, holding.format
        stored = folder.total(name, fmt)
        native = weights.component.loaded_bytes
        loaded = round(anonymous * native) if fmt.element is None or not holding.at_load else stored
        loading += loaded
        largest = max(largest, native, loaded)
        if place.mode == "resident":
            continue
        if place.host == "disk":
            disk += stored
            # The files are written from a full copy, one component after the other.
            transient = max(transient, stored)
            if place.stream:
                pinned += folder.largest_group(name, holding)
        elif place.host == "mapped":
            continue
        elif place.host == "pinned":
            copy = folder.total(name, fmt, "pinned")
            if fmt.element is None and weights.component.pinned_bytes is not None:
                copy = weights.component.pinned_bytes
            pinned += copy
            # Originals are let go only when the whole component (block level) has been copied.
            transient = max(transient, loaded if place.mode != "leaf" else 0)
        elif place.host == "pinned_on_demand":
            steady += stored
            pinned += _power_of_two(folder.largest_group(name, holding))
        else:
            steady += stored
    if scenario.load_once:
        loading = min(loading, largest)
    load = PROCESS_BYTES + loading
    running = PROCESS_BYTES + steady + pinned
    return HostFigures(max(load, running + transient), pinned, load, disk)


def _anonymous_share(measurement: Measurement) -> float:
    """Share of the loaded weights that is anonymous memory; a mapped checkpoint adds none until a cast copies it."""
    if measurement.load_host_bytes is None or measurement.weights_bytes <= 0:
        return 1.0
    return min(1.0, measurement.load_host_bytes / measurement.weights_bytes)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length() if size > 0 else 0
