"""NVIDIA cards through NVML: memory, processes, PCIe link, MIG slices and driver model, without importing torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from oomdoctor.hardware.detect.nvml import Nvml, cuda_version
from oomdoctor.hardware.detect.system import System
from oomdoctor.values.hardware import Gpu, GpuProcess, PcieLink


class Found(NamedTuple):
    """What one vendor's tools say."""

    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()
    driver_model: str | None = None
    """``WDDM`` or ``TCC`` (Windows), else None."""


def find_nvidia(nvml: Nvml, system: System) -> Found:
    """All NVIDIA cards of the machine, in the order of the PCI bus; MIG slices instead of the card they are cut from."""
    reason = nvml.open()
    if reason is not None:
        return Found(notes=tuple(_why_no_nvml(reason, system)))
    with closing(nvml):
        driver = nvml.ask("SystemGetDriverVersion")
        gpus: list[Gpu] = []
        notes: list[str] = []
        model = None
        for index in range(nvml.ask("DeviceGetCount", default=0)):
            device = nvml.ask("DeviceGetHandleByIndex", index)
            if device is None:
                notes.append(f"NVIDIA GPU {index} does not answer (lost, or not given to this container).")
                continue
            model = model or _driver_model(nvml, device)
            card = _gpu(nvml, device, index, driver)
            if _mig_on(nvml, device):
                slices = list(_slices(nvml, device, card))
                gpus += slices
                if not slices:
                    notes.append(f"{card.name} (GPU {index}) is in MIG mode without an instance that CUDA could use.")
                continue
            gpus.append(card)
            if card.total_bytes is None:
                notes.append(
                    f"The memory of {card.name} (GPU {index}) is unknown: NVML does not tell it.{_unified(system)}"
                )
        supported = cuda_version(nvml.ask("SystemGetCudaDriverVersion"))
        if gpus and supported:
            notes.append(f"Driver {driver or 'of unknown version'} runs CUDA builds up to {supported}.")
        return Found(tuple(gpus), tuple(notes), model)


def _gpu(nvml: Nvml, device: object, index: int, driver: str | None) -> Gpu:
    memory = nvml.memory(device)
    capability = nvml.ask("DeviceGetCudaComputeCapability", device)
    return Gpu(
        index=index,
        name=nvml.ask("DeviceGetName", device, default="NVIDIA GPU of unknown name"),
        family="cuda",
        total_bytes=memory[0] if memory else None,
        free_bytes=memory[1] if memory else None,
        compute_capability=(int(capability[0]), int(capability[1])) if capability else None,
        processes=_processes(nvml, device, memory[0] if memory else None),
        pcie=_pcie(nvml, device),
        driver_version=driver,
        mig=_mig_on(nvml, device),
    )


def _processes(nvml: Nvml, device: object, total: int | None) -> tuple[GpuProcess, ...]:
    used: dict[int, int | None] = {}
    for kind in ("Compute", "Graphics", "MPSCompute"):
        for process in nvml.ask(f"DeviceGet{kind}RunningProcesses", device, default=()):
            amount = process.usedGpuMemory
            # "Not available" comes as None or as 2^64 - 1, depending on the driver; 0 is what containers report.
            if not amount or (total is not None and amount > total):
                amount = None
            # A process is listed as compute and as graphics with the same memory: not twice.
            used[process.pid] = max(used.get(process.pid) or 0, amount or 0) or None
    return tuple(
        GpuProcess(pid=pid, name=_name(nvml.ask("SystemGetProcessName", pid)), used_bytes=amount)
        for pid, amount in sorted(used.items(), key=lambda item: -(item[1] or 0))
    )


def _name(path: str | None) -> str | None:
    """The program's file name, without its folders and arguments."""
    if not path or path.startswith("["):  # "[Not Found]", "[Insufficient Permissions]"
        return None
    return path.split(" ")[0].replace("\\", "/").rpartition("/")[2] or None


def _pcie(nvml: Nvml, device: object) -> PcieLink | None:
    link = PcieLink(
        generation=nvml.ask("DeviceGetCurrPcieLinkGeneration", device),
        lanes=nvml.ask("DeviceGetCurrPcieLinkWidth", device),
        max_generation=nvml.ask("DeviceGetMaxPcieLinkGeneration", device),
        max_lanes=nvml.ask("DeviceGetMaxPcieLinkWidth", device),
    )
    return link if link != PcieLink() else None


def _mig_on(nvml: Nvml, device: object) -> bool | None:
    """None where the card cannot be cut at all."""
    mode = nvml.ask("DeviceGetMigMode", device)
    return None if mode is None else mode[0] == 1


def _slices(nvml: Nvml, device: object, whole: Gpu) -> Iterator[Gpu]:
    for number in range(nvml.ask("DeviceGetMaxMigDeviceCount", device, default=0)):
        part = nvml.ask("DeviceGetMigDeviceHandleByIndex", device, number)
        if part is None:
            continue
        gpu = _gpu(nvml, part, whole.index, whole.driver_version)
        name = gpu.name if "MIG" in gpu.name else f"{whole.name} MIG"
        capability = gpu.compute_capability or whole.compute_capability
        yield gpu.model_copy(update={"name": name, "mig": True, "pcie": whole.pcie, "compute_capability": capability})


def _driver_model(nvml: Nvml, device: object) -> str | None:
    answer = nvml.ask("DeviceGetDriverModel", device)
    current = answer[0] if isinstance(answer, (list, tuple)) else answer
    if current is None:
        return None
    # NVML's constants: 0 WDDM, 1 WDM (shown to people as TCC), 2 MCDM (behaves as TCC: no system memory behind it).
    return "WDDM" if current == 0 else "TCC"


def _unified(system: System) -> str:
    if "tegra" in (system.read("/proc/version") or "").lower() or system.exists("/etc/nv_tegra_release"):
        return " This is a Jetson: the GPU shares the machine's RAM, so plan with the RAM."
    return " A GPU that shares the machine's RAM (GB10, Jetson) has none of its own: plan with the RAM."


def _why_no_nvml(reason: str, system: System) -> Iterator[str]:
    if system.exists("/dev/nvidia0") or system.exists("/proc/driver/nvidia/version"):
        yield (
            f"An NVIDIA driver seems to be present but NVML cannot be used ({reason}); its cards are unknown. In a "
            "container start it with --gpus all and the 'utility' driver capability; after a driver update, reboot."
        )
    elif system.wsl:
        yield f"WSL: NVML cannot be used ({reason}). For an NVIDIA card install its driver in Windows, none in Linux."
    elif "not found" not in reason.lower() and "not load" not in reason.lower():
        yield f"NVML is installed but cannot be used ({reason}); NVIDIA cards, if any, are unknown."
