"""AMD cards: memory and link from the amdgpu driver's files (no tool needed), names from amd-smi or rocm-smi."""

from __future__ import annotations

import json
import re
from typing import Any

from oomdoctor.hardware.detect.nvidia import Found
from oomdoctor.hardware.detect.system import System
from oomdoctor.units import GIB
from oomdoctor.values.hardware import Gpu, GpuProcess, PcieLink

_DRM = "/sys/class/drm"
_KFD = "/sys/class/kfd/kfd"
_AMD = "0x1002"
_APU_BYTES = 4 * GIB
_GENERATION = {"2.5": 1, "5.0": 2, "5": 2, "8.0": 3, "8": 3, "16.0": 4, "16": 4, "32.0": 5, "32": 5, "64.0": 6}
"""PCIe generation by the transfer rate in GT/s that sysfs prints."""


def find_amd(system: System) -> Found:
    """AMD cards of this machine. A compute capability has no counterpart here and stays unknown."""
    if system.platform != "linux":
        return Found()
    names = _names(system)
    gpus = [_gpu(system, device, index, names) for index, device in enumerate(_devices(system))]
    if not gpus:
        gpus = _from_rocm_smi(system)
    if not gpus:
        return Found()
    notes = []
    if not system.exists("/dev/kfd"):
        notes.append("An AMD GPU is present, but not /dev/kfd: ROCm, and so torch, cannot use it here.")
    for gpu in gpus:
        if gpu.total_bytes is None:
            notes.append(f"The memory of {gpu.name} (GPU {gpu.index}) is unknown: the driver does not tell it.")
        elif gpu.total_bytes < _APU_BYTES:
            notes.append(f"{gpu.name} (GPU {gpu.index}) shares the machine's RAM; how much it can take is unknown.")
    return Found(tuple(gpus), tuple(notes))


def _devices(system: System) -> list[str]:
    """The device folders of AMD cards, in the order of their card numbers."""
    cards = [n for n in system.names(_DRM) if re.fullmatch(r"card\d+", n)]
    folders = [f"{_DRM}/{n}/device" for n in sorted(cards, key=lambda n: int(n[4:]))]
    return [f for f in folders if system.read(f"{f}/vendor") == _AMD]


def _gpu(system: System, device: str, index: int, names: list[str]) -> Gpu:
    total, used = system.number(f"{device}/mem_info_vram_total"), system.number(f"{device}/mem_info_vram_used")
    name = system.read(f"{device}/product_name") or (names[index] if index < len(names) else "")
    return Gpu(
        index=index,
        name=name or f"AMD GPU {system.read(f'{device}/device') or 'of unknown name'}",
        family="hip",
        total_bytes=total,
        free_bytes=total - used if total is not None and used is not None else None,
        processes=_processes(system, device),
        pcie=_pcie(system, device),
        driver_version=system.read("/sys/module/amdgpu/version"),
    )


def _processes(system: System, device: str) -> tuple[GpuProcess, ...]:
    """Who holds memory of the card, as the compute driver counts it: ``proc/<pid>/vram_<card>``, bytes."""
    card = _kfd_number(system, device)
    found = []
    for pid in system.names(f"{_KFD}/proc") if card is not None else ():
        used = system.number(f"{_KFD}/proc/{pid}/vram_{card}")
        if pid.isdigit() and used:
            found.append(GpuProcess(pid=int(pid), name=system.read(f"/proc/{pid}/comm"), used_bytes=used))
    return tuple(sorted(found, key=lambda process: -(process.used_bytes or 0)))


def _kfd_number(system: System, device: str) -> int | None:
    """What the compute driver calls the card: the node of its topology with the same render device."""
    renders = [name for name in system.names(f"{device}/drm") if name.startswith("renderD")]
    for node in system.names(f"{_KFD}/topology/nodes") if renders else ():
        place = f"{_KFD}/topology/nodes/{node}"
        lines = (system.read(f"{place}/properties") or "").splitlines()
        if f"drm_render_minor {renders[0][len('renderD') :]}" in lines:
            return system.number(f"{place}/gpu_id")
    return None


def _pcie(system: System, device: str) -> PcieLink | None:
    def generation(name: str) -> int | None:
        return _GENERATION.get((system.read(f"{device}/{name}") or "").split(" ")[0])

    link = PcieLink(
        generation=generation("current_link_speed"),
        lanes=system.number(f"{device}/current_link_width"),
        max_generation=generation("max_link_speed"),
        max_lanes=system.number(f"{device}/max_link_width"),
    )
    return link if link != PcieLink() else None


def _names(system: System) -> list[str]:
    """Market names by card, from whichever tool is installed; empty when none is."""
    listed = _json(system.run("amd-smi", "static", "--asic", "--json"))
    if isinstance(listed, dict):
        listed = listed.get("gpu_data")
    if isinstance(listed, list):
        found = [g.get("asic", {}).get("market_name", "") for g in listed if isinstance(g, dict)]
        if any(found):
            return [_with_maker(str(n)) for n in found]
    products = _json(system.run("rocm-smi", "--showproductname", "--json"))
    return [_with_maker(_rocm_name(p)) for _, p in _rocm_cards(products)]


def _from_rocm_smi(system: System) -> list[Gpu]:
    """For containers that hide the driver's files."""
    memory = _json(system.run("rocm-smi", "--showmeminfo", "vram", "--showproductname", "--json"))
    gpus = []
    for index, card in _rocm_cards(memory):
        total, used = _int(card.get("VRAM Total Memory (B)")), _int(card.get("VRAM Total Used Memory (B)"))
        free = total - used if total is not None and used is not None else None
        name = _with_maker(_rocm_name(card)) or "AMD GPU of unknown name"
        gpus.append(Gpu(index=index, name=name, family="hip", total_bytes=total, free_bytes=free))
    return gpus


def _rocm_cards(listed: Any) -> list[tuple[int, dict[str, Any]]]:
    if not isinstance(listed, dict):
        return []
    cards = [(int(k[4:]), v) for k, v in listed.items() if re.fullmatch(r"card\d+", k) and isinstance(v, dict)]
    return sorted(cards, key=lambda item: item[0])


def _rocm_name(card: dict[str, Any]) -> str:
    for key in ("Card Series", "Card series", "Card Model", "Card model"):
        if card.get(key) and not str(card[key]).startswith("0x"):
            return str(card[key])
    return ""


def _with_maker(name: str) -> str:
    return name if not name or name.upper().startswith("AMD") else f"AMD {name}"


def _json(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _int(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None
