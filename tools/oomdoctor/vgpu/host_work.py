"""Work of the host beside launching: hooks around a module's call, and page-locking.

Hooks were timed on a CPU, where nothing else happens in them; the same libraries on a desktop CPU take about as long.
It is seen where the host is what a run waits for: leaf by leaf, or without a stream that runs ahead.
"""

from __future__ import annotations

from typing import Any

GROUP_SECONDS = 80e-6
"""diffusers' group offloading, per group that is moved; the launches of its copies come on top."""
CAST_SECONDS = 60e-6
"""diffusers' layerwise casting, per layer."""
SEQUENTIAL_SECONDS = 240e-6
"""accelerate's offload of one layer: it rebuilds every parameter."""
PIN_BYTES_PER_SECOND = 25e9
"""Page-locking a copy. FLUX's transformer leaf by leaf with weights pinned on demand takes 13.7 s instead of 9.5 s for
five forwards, by published times."""
_DIFFUSERS = {"group_offloading": GROUP_SECONDS, "layerwise_casting": CAST_SECONDS}


def seconds(module: Any) -> float:
    """What the hooks on ``module`` take around one call of it."""
    own = module.__dict__
    total = 0.0
    registry = own.get("_diffusers_hook")
    if registry is not None:
        for name in registry.hooks:
            total += _DIFFUSERS.get(name, 0.0)
    hook = own.get("_hf_hook")
    if hook is not None and getattr(hook, "offload", False):
        total += SEQUENTIAL_SECONDS
    return total


def pin(nbytes: int) -> float:
    """Making a page-locked copy of so many bytes."""
    return nbytes / PIN_BYTES_PER_SECOND
