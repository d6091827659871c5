"""Apple and Intel GPUs, and what Windows says of cards without a tool: as far as they tell, else "unknown"."""

from __future__ import annotations

import json
from typing import Any

from oomdoctor.hardware.detect.nvidia import Found
from oomdoctor.hardware.detect.system import System
from oomdoctor.units import MIB
from oomdoctor.values.hardware import Gpu


def find_apple(system: System) -> Found:
    """The GPU of an Apple-silicon Mac, which shares the machine's RAM."""
    if system.platform != "darwin":
        return Found()
    chip = (system.run("sysctl", "-n", "machdep.cpu.brand_string") or "").strip()
    if not chip.startswith("Apple"):
        names = _displays(system)
        said = f": {', '.join(names)}" if names else ""
        return Found(notes=(f"This Mac has no Apple silicon{said}; whether torch can use its GPU is unknown.",))
    total = _number(system.run("sysctl", "-n", "hw.memsize"))
    wired = _number(system.run("sysctl", "-n", "iogpu.wired_limit_mb"))
    note = f"{chip} shares the machine's RAM with its GPU: plan with the RAM."
    if not wired:
        note += " How much of it Metal grants the GPU is unknown here; torch.mps.recommended_max_memory() tells."
    gpu = Gpu(index=0, name=chip, family="mps", total_bytes=wired * MIB if wired else total)
    return Found((gpu,), (note,))


def find_intel(system: System) -> Found:
    """Intel cards that xpu-smi lists; without that tool only the fact that there is one."""
    listed = _json(system.run("xpu-smi", "discovery", "-j"))
    devices = listed.get("device_list", []) if isinstance(listed, dict) else []
    gpus: list[Gpu] = []
    notes: list[str] = []
    for device in (d for d in devices if isinstance(d, dict)):
        number = device.get("device_id", len(gpus))
        detail = _json(system.run("xpu-smi", "discovery", "-d", str(number), "-j"))
        detail = detail if isinstance(detail, dict) else {}
        name = str(device.get("device_name") or "Intel GPU of unknown name")
        total = _number(str(detail.get("memory_physical_size_byte", "")))
        gpus.append(Gpu(index=len(gpus), name=name, family="xpu", total_bytes=total or None))
        notes.append(f"The free memory of {name} is unknown: xpu-smi does not tell it.")
    if not gpus and _arc(system):
        notes.append("An Intel GPU is present; its memory is unknown. Install xpu-smi, or name a card with --gpu.")
    return Found(tuple(gpus), tuple(notes))


def find_windows(system: System) -> Found:
    """Names of AMD and Intel cards on Windows, where no tool of theirs tells torch's view of their memory."""
    if system.platform != "win32":
        return Found()
    listed = system.run(
        "powershell", "-NoProfile", "-Command", "(Get-CimInstance Win32_VideoController).Name", timeout=15
    )
    names = [n.strip() for n in (listed or "").splitlines() if n.strip()]
    others = [n for n in names if any(maker in n for maker in ("AMD", "Radeon", "Intel"))]
    return Found(
        notes=tuple(f"Windows lists {n}; its memory, and whether torch can use it, is unknown." for n in others)
    )


def _arc(system: System) -> bool:
    """Whether an Intel card with memory of its own is present (class 0x0380: no display attached, as on the Arc)."""
    for name in system.names("/sys/bus/pci/devices"):
        folder = f"/sys/bus/pci/devices/{name}"
        if system.read(f"{folder}/vendor") != "0x8086":
            continue
        driver = system.path(f"{folder}/driver")
        display = (system.read(f"{folder}/class") or "").startswith("0x03")
        # The built-in GPU of an Intel processor always sits at 00:02.0.
        if display and not name.endswith("00:02.0") and driver.exists():
            return True
    return False


def _displays(system: System) -> list[str]:
    listed = _json(system.run("system_profiler", "SPDisplaysDataType", "-json", timeout=20))
    displays = listed.get("SPDisplaysDataType", []) if isinstance(listed, dict) else []
    return [str(d.get("sppci_model") or d.get("_name")) for d in displays if isinstance(d, dict)]


def _json(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _number(text: str | None) -> int | None:
    try:
        return int((text or "").strip())
    except ValueError:
        return None
