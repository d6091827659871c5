"""Rules for operations that a meta kernel cannot answer: one registry, found by walking this folder.

A rule is ``fn(call: Call) -> result`` registered with ``@rule(torch.ops.aten.x.default, ...)``; it returns virtual
tensors (or scalars), or :data:`DECLINE` to let the ordinary path go on. To teach the virtual GPU a new operation, add
one file here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

DECLINE = object()


@dataclass(slots=True)
class Call:
    """One operation: the function, its arguments as given, the device of its results."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    device: torch.device

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)


Rule = Callable[[Call], Any]
registry: dict[Any, Rule] = {}


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Register a rule for one or more operator overloads. A second rule for the same one is an error."""

    def register(fn: Rule) -> Rule:
        for target in targets:
            if not isinstance(target, torch._ops.OpOverload):
                raise TypeError(f"a rule is for an operator overload such as torch.ops.aten.add.Tensor, not {target!r}")
            if target in registry:
                raise ValueError(f"{target} has a rule already")
            registry[target] = fn
        return fn

    return register


Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
functions: dict[Any, Handler] = {}


def function(*targets: Any) -> Callable[[Handler], Handler]:
    """Register ``fn(func, args, kwargs)`` for Python functions of torch, which it sees before C++ does.

    For decisions that C++ takes by the device of a tensor. ``NotImplemented`` lets the ordinary path go on.
    """

    def register(fn: Handler) -> Handler:
        for target in targets:
            if target in functions:
                raise ValueError(f"{target} has a handler already")
            functions[target] = fn
        return fn

    return register


def load_all() -> None:
    """Import every file of this folder; each registers its rules and handlers."""
    for info in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{info.name}")
    from oomdoctor.vgpu import modes

    for target, handler in functions.items():
        modes._HANDLERS.setdefault(target, handler)
