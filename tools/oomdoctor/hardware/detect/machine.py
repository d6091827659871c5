"""``detect_hardware``: the whole machine in one value.

>>> from oomdoctor.hardware import detect_hardware
>>> hardware = detect_hardware(python="/home/me/venv/bin/python")
>>> hardware.gpus[0].free_bytes, hardware.ram.available_bytes     # the two figures to plan with
(11906842624, 52613349376)
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from oomdoctor.hardware.detect.amd import find_amd
from oomdoctor.hardware.detect.interpreter import installed_versions
from oomdoctor.hardware.detect.memory import Meter, machine_memory, read_ram
from oomdoctor.hardware.detect.nvidia import find_nvidia
from oomdoctor.hardware.detect.nvml import Nvml
from oomdoctor.hardware.detect.others import find_apple, find_intel, find_windows
from oomdoctor.hardware.detect.system import System
from oomdoctor.hardware.gpus.build import catalogue_name
from oomdoctor.values.hardware import Gpu, Hardware

_SPILL = (
    "{model}: when VRAM runs out the driver moves memory to RAM instead of failing, so too little VRAM shows as a run "
    "that is many times slower, not as an error. Plan with the free VRAM of the card."
)


def detect_hardware(
    *,
    python: str | None = None,
    disk_path: str | None = None,
    system: System | None = None,
    nvml: Nvml | None = None,
    meter: Meter = machine_memory,
) -> Hardware:
    """What this machine has, without importing torch; a machine without any GPU is a normal answer.

    ``python`` is the interpreter that runs the user's script (default: this one); its libraries' versions are read
    from metadata. ``disk_path`` is where offloading to disk would write (default: the working folder). ``system``,
    ``nvml`` and ``meter`` are the doors to the machine, for tests. Raises :class:`~oomdoctor.errors.BadInterpreter`.
    """
    system = system or System()
    path, versions = installed_versions(python)
    nvidia = find_nvidia(nvml or Nvml(), system)
    found = (nvidia, find_amd(system), find_apple(system), find_intel(system), find_windows(system))
    gpus = tuple(gpu.model_copy(update={"card": catalogue_name(gpu)}) for each in found for gpu in each.gpus)
    ram, ram_notes = read_ram(system, meter)
    model = "WSL" if system.wsl else nvidia.driver_model
    disk, disk_note = _disk_free(disk_path)
    notes = [*(note for each in found for note in each.notes), *ram_notes, *disk_note, *_torch_notes(gpus, versions)]
    if model in ("WDDM", "WSL") and nvidia.gpus:
        notes.append(_SPILL.format(model=model))
    if not gpus:
        notes.insert(0, "No GPU was found that torch could use.")
    notes += _visibility(system, gpus)
    return Hardware(
        gpus=gpus,
        ram=ram,
        os=f"{platform.platform()}{' (WSL)' if system.wsl else ''}",
        driver_model=model,
        disk_free_bytes=disk,
        python=path,
        versions=versions,
        notes=tuple(notes),
    )


def _disk_free(disk_path: str | None) -> tuple[int | None, tuple[str, ...]]:
    """Free bytes where ``disk_path`` is or will be made."""
    folder = Path(os.path.abspath(os.path.expanduser(disk_path or os.curdir)))
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free, ()
    except OSError as error:
        return None, (f"Free disk space of {folder} is unknown: {error.strerror}.",)


def _torch_notes(gpus: tuple[Gpu, ...], versions: dict[str, str | None]) -> list[str]:
    torch = versions.get("torch")
    if torch is None:
        return ["torch is not installed in this interpreter; give the one that runs your script with --python."]
    families = {gpu.family for gpu in gpus}
    if "+cpu" in torch and families & {"cuda", "hip", "xpu"}:
        return [f"torch {torch} is a build for CPUs: it cannot use the GPU. Install a build for it from pytorch.org."]
    if "+rocm" in torch and families == {"cuda"}:
        return [f"torch {torch} is a build for AMD cards: it cannot use the NVIDIA GPU."]
    if "+cu" in torch and families == {"hip"}:
        return [f"torch {torch} is a build for NVIDIA cards: it cannot use the AMD GPU."]
    return []


_VISIBILITY = {
    "CUDA_VISIBLE_DEVICES": ("cuda", "hip"),
    "HIP_VISIBLE_DEVICES": ("hip",),
    "ROCR_VISIBLE_DEVICES": ("hip",),
    "ONEAPI_DEVICE_SELECTOR": ("xpu",),
}
"""Environment variable -> the families of cards that it hides or renumbers."""


def _visibility(system: System, gpus: tuple[Gpu, ...]) -> list[str]:
    """What makes torch's numbering differ from the driver's."""
    notes = []
    for name, families in _VISIBILITY.items():
        chosen = system.environ.get(name)
        if chosen is not None and any(gpu.family in families for gpu in gpus):
            notes.append(f"{name} is {chosen or 'empty'}: torch sees only those cards, renumbered from 0.")
    names = {gpu.name for gpu in gpus if gpu.family == "cuda"}
    if len(names) > 1 and system.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        notes.append("The cards differ: torch's cuda:0 is the fastest one, here they are in the order of the PCI bus.")
    return notes
