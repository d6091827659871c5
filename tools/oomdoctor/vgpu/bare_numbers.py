"""Devices given as bare numbers (``torch.device(0)``, ``module.to(0)``, ``device_map={"": 0}``) on builds without CUDA.

A number means the accelerator that torch was compiled for; a build for the CPU has none and raises, deep in C++. So
there ``torch.device`` is a stand-in that asks the C++ type for ``cuda:N`` instead, and is that type in every check.
"""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu.cuda_api import Patches

_DEVICE = torch.device


class _AsTheType(type):
    """Checks against the stand-in are checks against the type it stands for."""

    def __call__(cls, *args: Any, **kwargs: Any) -> torch.device:
        first = args[0] if args else kwargs.get("device")
        if len(args) + len(kwargs) == 1 and isinstance(first, int):
            return _DEVICE("cuda", first)
        return _DEVICE(*args, **kwargs)

    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, _DEVICE)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, _DEVICE)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is _DEVICE

    def __hash__(cls) -> int:
        return hash(_DEVICE)


class device(metaclass=_AsTheType):
    """Stands for ``torch.device``."""

    __module__ = "torch"


def _parse_to(*args: Any, **kwargs: Any) -> Any:
    """What ``Module.to`` was given, with a number as ``cuda:N``."""
    if args and isinstance(args[0], int) and not isinstance(args[0], bool):
        args = (_DEVICE("cuda", args[0]), *args[1:])
    if isinstance(kwargs.get("device"), int):
        kwargs["device"] = _DEVICE("cuda", kwargs["device"])
    return _PARSE_TO(*args, **kwargs)


_PARSE_TO = torch._C._nn._parse_to


def patch_bare_numbers(patches: Patches) -> None:
    """Only where the build does not know what a number means."""
    try:
        _DEVICE(0)
    except RuntimeError:
        patches.set(torch, "device", device)
        patches.set(torch._C._nn, "_parse_to", _parse_to)
