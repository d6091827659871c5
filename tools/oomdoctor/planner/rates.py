"""How fast a machine moves and computes, as far as planning needs it. All rates are bytes per second.

The shares are read from public timings: FLUX transformer, five forwards streamed from pinned memory in 9.5 s
(22.2 GiB each, PCIe 4.0 x16: 0.8 of the line rate); FLUX sequential offload, 28 steps in 68 s (about 10 GB/s from
pageable memory); Z-Image leaf offload without a stream, 9 steps in 13 s more than resident (both directions, near 16
GB/s on PCIe 5.0). They are stated in the estimate, and ``calibrate`` replaces them by what the machine really does.
"""

from __future__ import annotations

from dataclasses import dataclass

from oomdoctor.values import Card

_LANE = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
REACHED = {(8, 0): 0.50, (8, 6): 0.77, (8, 9): 0.77, (9, 0): 0.47, (12, 0): 0.77}
"""Share of the dense matrix rate that an eager pipeline reaches, by compute capability: the virtual card's own figures,
repeated here because its code needs torch."""
REACHED_OTHERWISE = 0.62
_PINNED_SHARE = 0.8
_PAGEABLE_SHARE = 0.4
_PAGEABLE_LIMIT = 16e9
_COPY_BACK_SHARE = 0.4
_COPY_BACK_LIMIT = 14e9
GROUP_OVERHEAD_SECONDS = 90e-6
"""Host work per group that is moved, hooks and launches included (diffusers' hooks timed on a CPU). Without
``record_stream`` the host waits for the card after every group, so none of it hides behind computing."""
CAST_OVERHEAD_SECONDS = 70e-6
"""Host work of layerwise casting per module, four times that of the linear layer itself (timed on a CPU): seen only where
the host is waited for, as above."""
SEQUENTIAL_OVERHEAD_SECONDS = 250e-6
"""Host work per layer of accelerate's sequential offload: it rebuilds every parameter."""
LAUNCH_SECONDS = 6e-6
"""Host time per launch, as on the virtual card."""
QUEUE_LAUNCHES = 1024
"""Launches that a stream holds before the host has to wait for the oldest: the virtual card's own figure."""
PIN_BYTES_PER_SECOND = 25e9
"""Page-locking a copy on demand: FLUX's transformer at leaf level takes 13.7 s instead of 9.5 s for five forwards."""
DISK_BYTES_PER_SECOND = 2.5e9
"""A PCIe 3.0 NVMe drive, reads and writes; nothing is assumed to stay in the page cache."""


@dataclass(frozen=True)
class Rates:
    pinned: float
    pageable: float
    copy_back: float
    """Card to fresh pageable host memory."""
    memory: float
    """The card's own memory."""
    assumed: tuple[str, ...] = ()


def rates_of(card: Card) -> Rates:
    """Rates of a machine with that card in a full slot."""
    generation, lanes = card.pcie_generation or 4, card.pcie_lanes or 16
    line = _LANE.get(generation, _LANE[4]) * lanes
    pinned = card.pinned_bytes_per_second or _PINNED_SHARE * line
    how = "measured on this machine" if card.pinned_bytes_per_second else f"PCIe {generation}.0 x{lanes}"
    assumed = [f"{how}: {pinned / 1e9:.0f} GB/s from pinned memory"]
    if not card.pinned_bytes_per_second and (card.pcie_generation is None or card.pcie_lanes is None):
        assumed.append("the card's PCIe link is not known; 4.0 x16 was assumed where it was missing")
    return Rates(
        pinned=pinned,
        pageable=card.pageable_bytes_per_second or min(_PAGEABLE_SHARE * line, _PAGEABLE_LIMIT),
        copy_back=min(_COPY_BACK_SHARE * line, _COPY_BACK_LIMIT),
        memory=0.75 * card.memory_bytes_per_second,
        assumed=tuple(assumed),
    )


def compute_scale(timed: Card | None, target: Card) -> float:
    """Factor from seconds on the timed card to seconds on the target; 1 when the timed card is not known.

    Attention and linear layers follow the matrix rate, norms and convolutions the memory rate; the geometric mean of
    both ratios is used because the trace does not tell them apart.
    """
    if timed is None or timed.name == target.name:
        return 1.0
    matrix = _matrix_rate(timed) / _matrix_rate(target)
    memory = timed.memory_bytes_per_second / target.memory_bytes_per_second
    return float((matrix * memory) ** 0.5)


def _matrix_rate(card: Card) -> float:
    share = card.matmul_efficiency or REACHED.get(card.compute_capability or (0, 0), REACHED_OTHERWISE)
    return share * (card.bf16_flops or card.fp16_flops)
