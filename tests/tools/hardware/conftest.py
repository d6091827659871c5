"""A driver, a file tree and programs that a test invents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from oomdoctor.hardware.detect.nvml import Nvml
from oomdoctor.hardware.detect.system import System

MIB = 1 << 20


class NvmlError(Exception):
    """Stands where ``pynvml.NVMLError`` stands."""


@dataclass
class Device:
    """One card of the invented driver, or one MIG slice of it. None: the driver refuses to say."""

    name: str = "NVIDIA GeForce RTX 3060"
    total_mib: int | None = 12288
    reserved_mib: int = 250
    used_mib: int = 700
    capability: tuple[int, int] | None = (8, 6)
    compute: list[tuple[int, int | None]] = field(default_factory=list)
    graphics: list[tuple[int, int | None]] = field(default_factory=list)
    clients: list[tuple[int, int | None]] = field(default_factory=list)
    mig_mode: int | None = None
    slices: list[Device | None] = field(default_factory=list)
    driver_model: int | None = None
    link: tuple[int, int, int, int] | None = (1, 16, 4, 16)


class FakeNvml:
    """A stand-in for the module ``pynvml``: what it lacks raises AttributeError, as an older version would."""

    NVMLError = NvmlError
    nvmlMemory_v2 = 2

    def __init__(self, devices: list[Device | None], *, failure: str | None = None, bytes_names: bool = False) -> None:
        self.devices, self.failure, self.bytes_names = devices, failure, bytes_names
        self.open_count = 0
        self.program_names = {1234: "/usr/bin/python3.11 train.py", 77: "[Not Found]"}

    def nvmlInit(self) -> None:
        if self.failure:
            raise NvmlError(self.failure)
        self.open_count += 1

    def nvmlShutdown(self) -> None:
        self.open_count -= 1

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        return b"570.86.15" if self.bytes_names else "570.86.15"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12080

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        if pid not in self.program_names:
            raise NvmlError("Not Found")
        return self.program_names[pid]

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        return self._there(self.devices[index])

    def nvmlDeviceGetName(self, device: Device) -> str | bytes:
        return device.name.encode() if self.bytes_names else device.name

    def nvmlDeviceGetMemoryInfo(self, device: Device, version: int | None = None) -> SimpleNamespace:
        total = self._there(device.total_mib) * MIB
        used = device.used_mib * MIB
        if version == 2:
            reserved = device.reserved_mib * MIB
            return SimpleNamespace(total=total, reserved=reserved, used=used, free=total - reserved - used)
        return SimpleNamespace(total=total, used=used, free=total - device.reserved_mib * MIB - used)

    def nvmlDeviceGetCudaComputeCapability(self, device: Device) -> tuple[int, int]:
        return self._there(device.capability)

    def nvmlDeviceGetComputeRunningProcesses(self, device: Device) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in device.compute]

    def nvmlDeviceGetGraphicsRunningProcesses(self, device: Device) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in device.graphics]

    def nvmlDeviceGetMPSComputeRunningProcesses(self, device: Device) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in device.clients]

    def nvmlDeviceGetMigMode(self, device: Device) -> list[int]:
        mode = self._there(device.mig_mode)
        return [mode, mode]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Device) -> int:
        return len(device.slices)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Device, index: int) -> Device:
        return self._there(device.slices[index])

    def nvmlDeviceGetDriverModel(self, device: Device) -> list[int]:
        model = self._there(device.driver_model)
        return [model, model]

    def nvmlDeviceGetCurrPcieLinkGeneration(self, device: Device) -> int:
        return self._there(device.link)[0]

    def nvmlDeviceGetCurrPcieLinkWidth(self, device: Device) -> int:
        return self._there(device.link)[1]

    def nvmlDeviceGetMaxPcieLinkGeneration(self, device: Device) -> int:
        return self._there(device.link)[2]

    def nvmlDeviceGetMaxPcieLinkWidth(self, device: Device) -> int:
        return self._there(device.link)[3]

    @staticmethod
    def _there(value: Any) -> Any:
        if value is None:
            raise NvmlError("Not Supported")
        return value


@dataclass(frozen=True)
class FakeSystem(System):
    """Files below a temporary folder; programs from a table of command line -> output."""

    programs: Mapping[str, str] = field(default_factory=dict)

    def run(self, *command: str, timeout: float = 10.0) -> str | None:
        return self.programs.get(" ".join(command))


@pytest.fixture
def device() -> type[Device]:
    return Device


@pytest.fixture
def driver() -> Callable[..., FakeNvml]:
    """``driver(device, ...)``: a library with these cards; ``driver(failure="...")``: one that cannot start."""

    def make(*devices: Device | None, **options: Any) -> FakeNvml:
        return FakeNvml(list(devices), **options)

    return make


@pytest.fixture
def no_driver(driver: Callable[..., FakeNvml]) -> Nvml:
    return Nvml(driver(failure="NVML Shared Library Not Found"))


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., FakeSystem]:
    """``machine({"/proc/version": "..."}, programs={...})``: a machine with these files."""

    def make(
        files: Mapping[str, object] | None = None,
        *,
        platform: str = "linux",
        programs: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> FakeSystem:
        for name, text in (files or {}).items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return FakeSystem(root=tmp_path, platform=platform, environ=environ or {}, programs=programs or {})

    return make
