"""The door to NVML, the library inside NVIDIA's driver: it alone decides between a value and None.

>>> nvml = Nvml()
>>> reason = nvml.open()            # None when it works, else why not
>>> nvml.ask("DeviceGetCount", default=0)
"""

from __future__ import annotations

from typing import Any

import pynvml


class Nvml:
    """Calls by name, without the ``nvml`` prefix. ``library`` stands in for ``pynvml`` in tests."""

    def __init__(self, library: Any = pynvml) -> None:
        self._library = library
        self._open = False

    def open(self) -> str | None:
        """Start NVML. None on success, else the reason in words (no library, no driver, versions that differ)."""
        try:
            self._library.nvmlInit()
        except self._library.NVMLError as error:
            return str(error)
        except OSError as error:  # a library that is there but cannot be loaded
            return str(error)
        self._open = True
        return None

    def close(self) -> None:
        if self._open:
            self._open = False
            self.ask("Shutdown")

    def ask(self, name: str, *args: object, default: Any = None) -> Any:
        """The result of ``nvml<name>(*args)``, or ``default`` when the driver refuses or is too old to know the call.

        Bytes become text: which one a name comes as depends on pynvml's version.
        """
        call = getattr(self._library, f"nvml{name}", None)
        if call is None:
            return default
        try:
            value = call(*args)
        except (self._library.NVMLError, TypeError):  # TypeError: an older pynvml without that argument
            return default
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def memory(self, device: object) -> tuple[int, int] | None:
        """(total, free) bytes as torch sees them: the part that the driver keeps for itself is not in the total."""
        version = getattr(self._library, "nvmlMemory_v2", None)
        info = self.ask("DeviceGetMemoryInfo", device, version) if version is not None else None
        if info is None:
            info = self.ask("DeviceGetMemoryInfo", device)
        if info is None or not info.total:
            return None
        total = int(info.total) - int(getattr(info, "reserved", 0) or 0)
        return total, min(int(info.free), total)

    def constant(self, name: str) -> object:
        return getattr(self._library, name, None)


def cuda_version(number: int | None) -> str | None:
    """``12080`` as ``12.8``."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else None
