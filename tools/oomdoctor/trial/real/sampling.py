"""What the system sees of a process while it runs: its memory on the card (NVML) and in RAM (psutil). Parent side."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import psutil

INTERVAL_SECONDS = 0.1


class Sampler:
    """Samples a process and its children until closed. Peaks between two samples are missed; torch's own are exact."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_card_bytes: int | None = None
        """NVML's figure: torch's reserved memory, context and libraries. None where NVML does not tell (WSL, MIG)."""
        self.peak_anonymous_bytes = 0
        self.peak_mapped_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        nvml = _nvml()
        while not self._stop.wait(INTERVAL_SECONDS):
            pids = self._family()
            self._sample_memory(pids)
            if nvml is not None:
                self._sample_card(nvml, set(pids))

    def _family(self) -> list[int]:
        try:
            return [self.pid, *(c.pid for c in psutil.Process(self.pid).children(recursive=True))]
        except psutil.Error:
            return [self.pid]

    def _sample_memory(self, pids: list[int]) -> None:
        anonymous = mapped = 0
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                memory = psutil.Process(pid).memory_info()
                shared = int(getattr(memory, "shared", 0))
                anonymous += int(memory.rss) - shared
                mapped += shared
        self.peak_anonymous_bytes = max(self.peak_anonymous_bytes, anonymous)
        self.peak_mapped_bytes = max(self.peak_mapped_bytes, mapped)

    def _sample_card(self, nvml: Any, pids: set[int]) -> None:
        used = 0
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                processes = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByIndex(index))
            except nvml.NVMLError:
                return
            used += sum(int(p.usedGpuMemory) for p in processes if p.pid in pids and p.usedGpuMemory)
        if used:
            self.peak_card_bytes = max(self.peak_card_bytes or 0, used)


def _nvml() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return None  # no driver, or an older one: the figure stays unknown
    return pynvml
