"""The catalogue of cards: one row of ``cards.csv`` each, read once.

How the columns were filled (to add a card, add a row in the same way):

- ``total_mib``: what torch reports as the card's total on Linux, in MiB. ``memory_basis`` says ``seen`` where that
  number was printed by torch in public logs or error messages, ``estimate`` where it was taken from a card of the same
  memory size and generation. One card reports up to 1.5 % more or less as drivers change; Windows reports the full
  size of the box. The figure here is the one of 2024-25 drivers, or the smaller of two that are equally common.
- ``fp32``, ``fp16``, ``bf16``, ``fp8``: dense peak, TFLOP/s at boost clock, with fp32 accumulation, since that is what
  torch asks for. GeForce cards from RTX 20 on accumulate in fp32 at half their advertised tensor rate, so half is
  written here; workstation and data-centre cards run at full rate. Cards without tensor cores (Pascal, GTX 16) get
  their fp32 rate for fp16: their faster half-precision units would accumulate in fp16. ``bf16`` and ``fp8`` are empty
  where the card has no such units. Laptop cards: the maker's highest boost clock; many laptops run slower.
- ``gb_per_s``: memory bandwidth in 10^9 bytes/s. ``pcie``: generation x lanes of the card, not of the slot it sits in.
- ``usual``: of several cards that share a spelling, the one meant when no size is given. Left empty where the sizes are
  about equally common, so that asking for the bare name is refused instead of guessed.
- ``also``: further spellings, separated by ``|``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from oomdoctor.units import MIB
from oomdoctor.values.hardware import Card

CONTEXT_BASE_BYTES = 192 * MIB
CONTEXT_BYTES_PER_SM = 5 * MIB // 2

_MEMORY_BASIS = {
    "seen": "memory as torch printed it in public logs",
    "estimate": "memory estimated from cards of the same size and generation",
}


@dataclass(frozen=True)
class Row:
    """A card with what only the look-up needs."""

    card: Card
    size_gb: int
    """The number on the box: 12 for an RTX 3060 12 GB."""
    usual: bool
    also: tuple[str, ...]


def context_bytes(sm_count: int | None) -> int:
    """Bytes that the CUDA context and loaded kernels take: 192 MiB + 2.5 MiB per SM.

    Much of a context is per-SM (stacks, local memory), the rest is code. Against what public error messages leave
    unexplained once PyTorch's own share is subtracted (cards that nobody else used): RTX 3090 348 MiB (rule: 397),
    RTX 4090 471 (512), A100 506 (462), H20 316 (387), RTX 5090 307-500 (617), T4 129 (292). So it errs on the
    cautious side except by 9 % on the A100; a measured value replaces it where there is one.
    """
    return CONTEXT_BASE_BYTES + CONTEXT_BYTES_PER_SM * (sm_count or 64)


@cache
def rows() -> tuple[Row, ...]:
    """All rows, in the order of the file."""
    text = files(__package__).joinpath("cards.csv").read_text("utf-8")
    return tuple(_row(fields) for fields in csv.DictReader(text.splitlines()))


def cards() -> tuple[Card, ...]:
    """The catalogue, in the order of the file: GeForce desktop, laptop, workstation, data centre, AMD."""
    return tuple(row.card for row in rows())


def _row(f: dict[str, str]) -> Row:
    generation, _, lanes = f["pcie"].partition("x")
    sm_count = int(f["sm"]) if f["sm"] else None
    card = Card(
        name=f["name"],
        label=f["label"],
        total_bytes=int(float(f["total_mib"]) * MIB),
        compute_capability=_capability(f["cc"]),
        memory_bytes_per_second=float(f["gb_per_s"]) * 1e9,
        fp32_flops=float(f["fp32"]) * 1e12,
        fp16_flops=float(f["fp16"]) * 1e12,
        bf16_flops=_rate(f["bf16"]),
        fp8_flops=_rate(f["fp8"]),
        sm_count=sm_count,
        pcie_generation=int(generation),
        pcie_lanes=int(lanes),
        context_bytes=context_bytes(sm_count),
        source=f"rates: the maker's data sheet, dense, fp32 accumulation; {_MEMORY_BASIS[f['memory_basis']]}",
    )
    size = int(f["name"].rpartition("-")[2].removesuffix("gb"))
    return Row(card, size, f["usual"] == "yes", tuple(s for s in f["also"].split("|") if s))


def _rate(text: str) -> float | None:
    return float(text) * 1e12 if text else None


def _capability(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if text else None
