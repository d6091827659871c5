"""What to plan for: a card's memory and a machine's RAM, put together from names, figures and what was detected."""

from __future__ import annotations

from oomdoctor.errors import InputError, UnknownCard
from oomdoctor.hardware.gpus.build import card_for, card_with_memory
from oomdoctor.units import MIB, human
from oomdoctor.values.hardware import Card, Gpu, Hardware, Target

WAY_OUT = (
    "Name the card to plan for, for example --gpu 'RTX 3060' (`oom-doctor gpus` lists them), "
    "or give its memory with --vram 12."
)


def target_for(
    card: Card,
    *,
    vram_bytes: int | None = None,
    ram_bytes: int | None = None,
    hardware: Hardware | None = None,
) -> Target:
    """The target for a named ``card``: all of its memory unless ``vram_bytes`` says otherwise.

    ``vram_bytes`` below the card's total means that the rest is taken by others; above it, that the card has more
    memory than the catalogue knows. RAM is ``ram_bytes``, else what ``hardware`` has available. Raises
    :class:`InputError` when neither is given: there is no usual amount of RAM.
    """
    if vram_bytes is not None and vram_bytes > card.total_bytes:
        card = card_with_memory(card, vram_bytes)
    if vram_bytes is not None and vram_bytes <= card.context_bytes:
        raise InputError(
            f"{human(vram_bytes)} of VRAM does not even hold the CUDA context of a {card.label} "
            f"(about {human(card.context_bytes)}). Give what the script may use in GiB, for example --vram 8."
        )
    if ram_bytes is None and hardware is None:
        raise InputError("How much RAM the machine has is not known. Give it in GiB, for example --ram 32.")
    if ram_bytes is not None and ram_bytes < 256 * MIB:
        raise InputError(f"{human(ram_bytes)} of RAM cannot run a pipeline. Give --ram in GiB, for example --ram 32.")
    return Target(
        card=card,
        vram_bytes=card.total_bytes if vram_bytes is None else vram_bytes,
        ram_bytes=ram_bytes if ram_bytes is not None else hardware.ram.available_bytes if hardware else 0,
        pinned_cap_bytes=hardware.ram.pinned_cap_bytes if hardware else None,
        versions=hardware.versions if hardware else {},
        disk_free_bytes=hardware.disk_free_bytes if hardware else None,
    )


def target_auto(hardware: Hardware, *, vram_bytes: int | None = None, ram_bytes: int | None = None) -> Target:
    """The target for this machine (``--gpu auto``): its card with the most free memory, and that free memory.

    Raises :class:`UnknownCard` with the way out when there is no card, or when no card tells its memory.
    """
    if not hardware.gpus:
        raise UnknownCard(f"This machine has no GPU that can be detected. {WAY_OUT}")
    known = [gpu for gpu in hardware.gpus if gpu.total_bytes is not None]
    if not known:
        names = ", ".join(gpu.name for gpu in hardware.gpus)
        raise UnknownCard(f"The memory of {names} is unknown. {WAY_OUT}")
    gpu = max(known, key=_free)
    target = target_for(
        card_for(gpu),
        vram_bytes=_free(gpu) if vram_bytes is None else vram_bytes,
        ram_bytes=ram_bytes,
        hardware=hardware,
    )
    return target.model_copy(update={"gpu_count": sum(other.family == gpu.family for other in known)})


def _free(gpu: Gpu) -> int:
    return gpu.free_bytes if gpu.free_bytes is not None else gpu.total_bytes or 0
