"""``torch.load`` with tensors that were, or shall be, on a card: read on the CPU, then moved as the script would."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from oomdoctor.vgpu.cuda_api import Patches


def patch_load(patches: Patches) -> None:
    """Replace ``torch.load``: C++ would make storages on a card that is not there."""
    original: Callable[..., Any] = torch.load

    @functools.wraps(original)
    def load(f: Any, map_location: Any = None, *args: Any, **options: Any) -> Any:
        moved: dict[int, torch.device] = {}

        def locate(storage: Any, saved_at: str) -> Any:
            target = _target(map_location, storage, saved_at)
            if target is not None and target.type == "cuda":
                moved[storage._cdata] = target
            return storage

        return _move(original(f, locate, *args, **options), moved, {})

    patches.set(torch, "load", load)
    patches.set(torch.serialization, "load", load)


def _target(map_location: Any, storage: Any, saved_at: str) -> torch.device | None:
    """Where the storage belongs, by the four forms that ``map_location`` takes."""
    if map_location is None:
        place: Any = saved_at
    elif isinstance(map_location, dict):
        place = map_location.get(saved_at, saved_at)
    elif isinstance(map_location, (str, torch.device)):
        place = map_location
    else:
        answer = map_location(storage, saved_at)
        place = saved_at if answer is None else answer.device
    device = torch.device(place)
    return device if device.type in ("cpu", "cuda") else None


def _move(x: Any, moved: dict[int, torch.device], seen: dict[int, Any]) -> Any:
    """``x`` with the tensors of marked storages on their cards; containers and sharing kept."""
    if not moved:
        return x
    if id(x) in seen:
        return seen[id(x)]
    if isinstance(x, torch.nn.Module):
        device = next(iter(moved.values()))
        return x.to(device)
    if isinstance(x, torch.Tensor):
        device = moved.get(x.untyped_storage()._cdata) if x.layout == torch.strided else None
        out: Any = x
        if device is not None:
            out = x.detach().to(device)
            if isinstance(x, torch.nn.Parameter):
                out = torch.nn.Parameter(out, x.requires_grad)
    elif isinstance(x, dict):
        out = seen[id(x)] = x
        for key in list(x):
            x[key] = _move(x[key], moved, seen)
    elif isinstance(x, list):
        out = seen[id(x)] = x
        x[:] = [_move(item, moved, seen) for item in x]
    elif type(x) is tuple:
        out = tuple(_move(item, moved, seen) for item in x)
    else:
        out = x
    seen[id(x)] = out
    return out
