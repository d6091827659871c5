"""What a script saves and loads again in the same run (embeddings, weights): a marker on disk, layouts in memory.

Nothing of a saved tensor but its layout, device and few values is kept, so a saved and deleted tensor is gone as it
would be. Files are written where the script says, which in a virtual run is its scratch folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from oomdoctor.loading import session, snapshot, tables

KIND = "object"


@dataclass(frozen=True)
class _Layout:
    """A tensor that was saved."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    value: torch.Tensor | None
    parameter: bool
    grad: bool


_objects: list[Any] = []


def keep_object(data: Any, file: Any) -> None:
    """``torch.save(data, file)``: ``file`` is a path or something to write to. Raises OSError as writing does."""
    _objects.append(_template(data))
    _write(file, {"kind": KIND, "number": len(_objects) - 1})


def keep_tensors(tensors: dict[str, Any], file: Any) -> None:
    """``safetensors.torch.save_file(tensors, file)``."""
    named = {n: (tables.TYPE_NAMES[t.dtype], list(t.shape)) for n, t in tensors.items() if t.dtype in tables.TYPE_NAMES}
    _write(file, {"kind": "table", "tensors": named})


def restore(marker: dict[str, Any], place: Any) -> Any:
    """What was saved, on the device that ``torch.load``'s ``map_location`` names, or where it was."""
    device = torch.device(place) if isinstance(place, (str, torch.device)) else None
    if place is not None and device is None:
        device = torch.device("cpu")
    return _rebuilt(_objects[marker["number"]], device)


def _write(file: Any, content: dict[str, Any]) -> None:
    raw = snapshot.marker_bytes(content)
    if hasattr(file, "write"):
        file.write(raw)
        return
    with open(os.fspath(file), "wb") as stream:
        stream.write(raw)


def _template(x: Any) -> Any:
    if isinstance(x, torch.Tensor) and not hasattr(x, "__tensor_flatten__"):
        return _layout(x)
    if isinstance(x, dict):
        return _same(x, {k: _template(v) for k, v in x.items()})
    if type(x) in (list, tuple):
        return type(x)(_template(v) for v in x)
    return x


def _layout(x: torch.Tensor) -> _Layout:
    value = x.value() if hasattr(x, "value") else (x if x.numel() <= 1 << 14 and x.device.type == "cpu" else None)
    plain = None if value is None else value.detach().clone()
    parameter = isinstance(x, torch.nn.Parameter)
    return _Layout(tuple(x.shape), x.dtype, x.device, plain, parameter, x.requires_grad)


def _rebuilt(x: Any, device: torch.device | None) -> Any:
    if isinstance(x, _Layout):
        return _tensor(x, device or x.device)
    if isinstance(x, dict):
        return _same(x, {k: _rebuilt(v, device) for k, v in x.items()})
    if type(x) in (list, tuple):
        return type(x)(_rebuilt(v, device) for v in x)
    return x


def _tensor(x: _Layout, device: torch.device) -> Any:
    if x.value is not None:
        out: Any = x.value.clone().to(device)
    else:
        out = session.current().tensor(x.shape, x.dtype, "cpu", "anonymous")
        out = out.to(device) if device.type != "cpu" else out
    if x.parameter:
        return torch.nn.Parameter(out, requires_grad=x.grad)
    return out.requires_grad_() if x.grad else out


def _same(x: dict[Any, Any], items: dict[Any, Any]) -> dict[Any, Any]:
    """``items`` in a mapping of the kind of ``x``, where that can be made from one."""
    try:
        return type(x)(items)
    except TypeError:
        return items
