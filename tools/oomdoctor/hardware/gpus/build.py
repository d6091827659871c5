"""Cards that are not in the catalogue: made from what is known, cautious in the rest, and saying so in ``source``."""

from __future__ import annotations

import re

from oomdoctor.errors import InputError, UnknownCard
from oomdoctor.hardware.gpus.catalogue import cards, context_bytes
from oomdoctor.hardware.gpus.spelling import matching, parse
from oomdoctor.units import GIB, MIB, human
from oomdoctor.values.hardware import Card, Gpu

SAME_MEMORY = 0.08
"""Two totals are of one card when they differ by less than this share: drivers differ by 1.5 %, ECC by 6-7 %."""

_MIG = re.compile(r"\s+MIG\s+(\d+)[cg]\b.*", re.IGNORECASE)
_SLICES = 7
"""Compute slices of a whole A100, H100, H200 or B200."""
_SMALLEST = 512 * MIB
_LARGEST = 4096 * GIB


def card_for(gpu: Gpu) -> Card:
    """The card that a detected ``gpu`` is: its catalogue entry with the memory this machine reports, else a cautious one.

    A card that is not in the catalogue gets the lowest rates of the catalogue's cards of its generation: what fits is
    right (the memory is the real one), seconds are an upper bound. Raises :class:`UnknownCard` when not even the memory
    is known.
    """
    if gpu.total_bytes is None:
        raise UnknownCard(
            f"{gpu.name} (GPU {gpu.index}) does not say how much memory it has. Name a card with --gpu, "
            "or give its memory with --vram."
        )
    if gpu.mig:
        return _mig(gpu, gpu.total_bytes)
    same_name = [row.card for row in matching(parse(gpu.name).words)]
    if same_name:
        nearest = min(same_name, key=lambda c: abs(c.total_bytes - gpu.total_bytes))  # type: ignore[operator]
        if is_memory_of(nearest, gpu.total_bytes):
            return nearest.model_copy(update={"total_bytes": gpu.total_bytes})
        return card_with_memory(nearest, gpu.total_bytes)
    return _cautious(gpu.name, gpu.total_bytes, gpu.compute_capability, gpu.family)


def catalogue_name(gpu: Gpu) -> str | None:
    """Name of the catalogue entry that ``gpu`` is (same name, same memory), or None."""
    if gpu.total_bytes is None or gpu.mig:
        return None
    fitting = [r.card for r in matching(parse(gpu.name).words) if is_memory_of(r.card, gpu.total_bytes)]
    return min(fitting, key=lambda c: abs(c.total_bytes - (gpu.total_bytes or 0))).name if fitting else None


def is_memory_of(card: Card, total_bytes: int) -> bool:
    """Whether a total that a driver reports is this card's, up to drivers, Windows and ECC."""
    return abs(total_bytes / card.total_bytes - 1) < SAME_MEMORY


def card_with_memory(card: Card, total_bytes: int) -> Card:
    """``card`` with another amount of memory (a modified card, a variant that the catalogue lacks), rates unchanged."""
    _check(total_bytes)
    if total_bytes == card.total_bytes:
        return card
    stem = re.sub(r"-\d+gb$", "", card.name)
    return card.model_copy(
        update={
            "name": f"{stem}-{_size_word(total_bytes)}",
            "total_bytes": total_bytes,
            "source": f"{card.name} of the catalogue with {human(total_bytes)} instead of {human(card.total_bytes)}",
        }
    )


def custom_card(total_bytes: int, compute_capability: tuple[int, int] = (8, 6)) -> Card:
    """A card of which only the memory is known (``--vram`` without ``--gpu``).

    Assumed to be a GeForce RTX 30 unless ``compute_capability`` says otherwise, with the lowest rates of that
    generation: whether something fits depends on the memory alone, seconds are an upper bound.
    """
    _check(total_bytes)
    made = _cautious(f"a card with {human(total_bytes)}", total_bytes, compute_capability, "cuda")
    return made.model_copy(update={"name": f"custom-{_size_word(total_bytes)}"})


def _mig(gpu: Gpu, total_bytes: int) -> Card:
    profile = _MIG.search(gpu.name)
    whole = _MIG.sub("", gpu.name)
    same_name = [row.card for row in matching(parse(whole).words)]
    if not profile or not same_name:
        return _cautious(gpu.name, total_bytes, gpu.compute_capability, gpu.family)
    size = parse(whole).size_gb
    parent = min(same_name, key=lambda c: abs(c.total_bytes - (size or 80) * GIB))
    compute = min(1.0, int(profile[1]) / _SLICES)
    sm_count = int(parent.sm_count * compute) if parent.sm_count else None
    return parent.model_copy(
        update={
            "name": f"{parent.name}-mig-{profile[1]}g-{_size_word(total_bytes)}",
            "label": gpu.name,
            "total_bytes": total_bytes,
            "memory_bytes_per_second": parent.memory_bytes_per_second * min(1.0, total_bytes / parent.total_bytes),
            "fp32_flops": parent.fp32_flops * compute,
            "fp16_flops": parent.fp16_flops * compute,
            "bf16_flops": parent.bf16_flops * compute if parent.bf16_flops else None,
            "fp8_flops": parent.fp8_flops * compute if parent.fp8_flops else None,
            "sm_count": sm_count,
            "context_bytes": context_bytes(sm_count),
            "source": f"MIG slice of {parent.name}: memory as the driver reports it, {profile[1]}/7 of its compute",
        }
    )


def _cautious(name: str, total_bytes: int, capability: tuple[int, int] | None, family: str) -> Card:
    kin, of = _kin(capability, family)
    bf16 = [c.bf16_flops for c in kin if c.bf16_flops]
    fp8 = [c.fp8_flops for c in kin if c.fp8_flops]
    return Card(
        name=re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        label=name,
        total_bytes=total_bytes,
        compute_capability=capability,
        memory_bytes_per_second=min(c.memory_bytes_per_second for c in kin),
        fp32_flops=min(c.fp32_flops for c in kin),
        fp16_flops=min(c.fp16_flops for c in kin),
        # A unit counts as present only when the whole generation has it.
        bf16_flops=min(bf16) if len(bf16) == len(kin) else None,
        fp8_flops=min(fp8) if len(fp8) == len(kin) else None,
        sm_count=None,
        pcie_generation=min(c.pcie_generation or 3 for c in kin),
        pcie_lanes=min(c.pcie_lanes or 8 for c in kin),
        context_bytes=max(c.context_bytes for c in kin),
        source=f"not in the catalogue: memory as given, the lowest rates of {of}; seconds are an upper bound",
    )


def _kin(capability: tuple[int, int] | None, family: str) -> tuple[list[Card], str]:
    """The catalogue's cards to take cautious figures from, and their description."""
    if capability is None:
        others = [c for c in cards() if c.compute_capability is None]
        return (others, "the catalogue's AMD cards") if family != "cuda" else (list(cards()), "all cards")
    nvidia = [c for c in cards() if c.compute_capability is not None]
    exact = [c for c in nvidia if c.compute_capability == capability]
    if exact:
        return exact, f"cards of compute capability {capability[0]}.{capability[1]}"
    older = [c for c in nvidia if c.compute_capability and c.compute_capability <= capability]
    if not older:
        return nvidia, "all NVIDIA cards of the catalogue"
    newest = max(c.compute_capability for c in older if c.compute_capability)
    kin = [c for c in older if c.compute_capability == newest]
    return kin, f"cards of compute capability {newest[0]}.{newest[1]}, the newest known before this one"


def _check(total_bytes: int) -> None:
    if not _SMALLEST <= total_bytes <= _LARGEST:
        raise InputError(
            f"{human(total_bytes)} is not the memory of a card. Give --vram in GiB, for example --vram 12 or --vram 11.6."
        )


def _size_word(total_bytes: int) -> str:
    return f"{total_bytes / GIB:.1f}".removesuffix(".0") + "gib"
