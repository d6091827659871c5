"""Where transformers' bitsandbytes quantisers put a model: a card by its number becomes that card by name.

``torch.device(0)`` means the accelerator of the build, which a CPU-only build of torch refuses to name; ``cuda:0`` works
on every build.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

MODULES = ("transformers.quantizers.quantizer_bnb_4bit", "transformers.quantizers.quantizer_bnb_8bit")


def patch(module: ModuleType) -> None:
    """Wrap ``update_device_map`` of the quantisers that the module defines."""
    for thing in list(vars(module).values()):
        if isinstance(thing, type) and thing.__module__ == module.__name__ and "update_device_map" in vars(thing):
            _wrap(thing)


def _wrap(quantiser: Any) -> None:
    inner = quantiser.update_device_map

    def update_device_map(self: Any, device_map: Any) -> Any:
        found = inner(self, device_map)
        if not isinstance(found, dict):
            return found
        return {name: f"cuda:{where}" if isinstance(where, int) else where for name, where in found.items()}

    quantiser.update_device_map = update_device_map
