"""The two torch modes that make a program see a card: one for Python calls, one for operators.

The function mode sees ``torch.*`` calls before C++ does: device arguments, generators, attention. The dispatch mode
sees operators, among them the factories that C++ composites call inside (``pad_sequence``, attention masks).
Modes are thread-local; :func:`in_every_thread` makes new threads enter them too.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from oomdoctor.vgpu import autocast, factories, moves
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.allocator import OutOfCardMemory
from oomdoctor.vgpu.dispatch import dispatch
from oomdoctor.vgpu.generator import VirtualGenerator
from oomdoctor.vgpu.refusals import as_torch
from oomdoctor.vgpu.rules.attention import sdpa
from oomdoctor.vgpu.tensor import VirtualTensor
from oomdoctor.vgpu.wrappers import is_wrapper

CPU = torch.device("cpu")


class FunctionMode(TorchFunctionMode):
    """Python-level calls."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for kind in types:
            if kind not in _NO_WRAPPERS and _is_wrapper(kind):
                return _of_wrapper(func, types, args, kwargs)
        if func in _QUESTIONS:
            return func(*args, **kwargs)
        handler = _HANDLERS.get(func)
        if handler is not None:
            result = handler(func, args, kwargs)
            if result is not NotImplemented:
                return result
        elif kwargs:
            device = kwargs.get("device")
            if (
                device is not None
                and not isinstance(device, torch.device)
                or device is not None
                and device.type == "cuda"
                and device.index is None
            ):
                kwargs = dict(kwargs, device=_world.normal_device(device))
        device = _first_device(args)
        if device is None:
            return func(*args, **kwargs)
        # C++ composites make tensors "on the device of their input", which for them is meta: remember which one it is.
        outer = _ambient.device
        _ambient.device = device
        try:
            return func(*args, **kwargs)
        finally:
            _ambient.device = outer


_QUESTIONS = frozenset(
    (
        *(getattr(torch.Tensor, name).__get__ for name in ("shape", "dtype", "requires_grad", "grad_fn", "grad")),
        *(getattr(torch.Tensor, name) for name in ("size", "dim", "numel", "element_size", "is_floating_point")),
        torch.is_floating_point,
        torch._C._set_grad_enabled,
    )
)
"""Calls that make nothing and move nothing; they are nearly half of all."""

_NO_WRAPPERS: set[type] = {torch.Tensor, torch.nn.Parameter, VirtualTensor}
"""Types that were found to be no wrappers."""


def _is_wrapper(kind: type) -> bool:
    if is_wrapper(kind):
        return True
    _NO_WRAPPERS.add(kind)
    return False


class _Ambient(threading.local):
    device: torch.device | None = None
    wrapped: tuple[Any, ...] = ()
    """Calls on wrappers that are under way: (function, id of its first argument)."""


_ambient = _Ambient()


def _of_wrapper(func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """Let the wrapper answer; moves go straight to its operator, since C++ would ask for a real card first."""
    move = moves.OF_WRAPPERS.get(func)
    if move is not None and is_wrapper(type(args[0])):
        with FunctionMode():
            return move(func, args, kwargs)
    call = (func, id(args[0]) if args else 0)
    if call in _ambient.wrapped:
        return func(*args, **kwargs)
    outer = _ambient.wrapped
    _ambient.wrapped = (*outer, call)
    try:
        with FunctionMode():
            for kind in types:
                result = kind.__torch_function__(func, types, args, kwargs) if is_wrapper(kind) else NotImplemented
                if result is not NotImplemented:
                    return result
    finally:
        _ambient.wrapped = outer
    return func(*args, **kwargs)


def _first_device(args: Any) -> torch.device | None:
    for x in args:
        if isinstance(x, VirtualTensor):
            return x._spec.device
        if type(x) in (list, tuple):
            for y in x:
                if isinstance(y, VirtualTensor):
                    return y._spec.device
    return None


class DispatchMode(TorchDispatchMode):
    """Operators."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Newer torch wraps the handler against being compiled, 10 us per operation; nothing is compiled in a virtual run.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for t in types:
            if t is VirtualTensor:
                return dispatch(func, args, kwargs)
        for x in args:
            if type(x) in (list, tuple) and any(isinstance(y, VirtualTensor) for y in x):
                return dispatch(func, args, kwargs)
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda":
            return factories.by_operator(func, args, kwargs, _world.normal_device(device))
        if device is not None and _ambient.device is not None and torch.device(device).type == "meta":
            return factories.by_operator(func, args, kwargs, _ambient.device)
        on_host = device is None or torch.device(device).type == "cpu"
        if on_host and factories.large_on_host(func, args, kwargs):
            return factories.by_operator(func, args, kwargs, CPU)
        return func(*args, **kwargs)


def _attention(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = (*args[:3], *(kwargs[k] for k in ("query", "key", "value") if k in kwargs))
    if not any(isinstance(t, VirtualTensor) for t in tensors):
        return NotImplemented
    if autocast.state.enabled:
        dtype = torch.get_autocast_dtype("cuda")
        args = tuple(autocast.cast_tensor(a, dtype) for a in args)
        kwargs = {k: autocast.cast_tensor(v, dtype) for k, v in kwargs.items()}
    try:
        return sdpa(*args, **kwargs)
    except OutOfCardMemory as error:
        raise as_torch(error) from None


_HANDLERS: dict[Any, Any] = {
    **factories.HANDLERS,
    **moves.HANDLERS,
    torch.nn.functional.scaled_dot_product_attention: _attention,
}


def in_every_thread() -> Any:
    """Make every thread that starts from now on enter both modes. Returns a function that undoes it."""
    original = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def bootstrap(self: threading.Thread) -> None:
        with DispatchMode(), FunctionMode():
            original(self)

    threading.Thread._bootstrap_inner = bootstrap  # type: ignore[attr-defined]

    def undo() -> None:
        threading.Thread._bootstrap_inner = original  # type: ignore[attr-defined]

    return undo


__all__ = ["DispatchMode", "FunctionMode", "VirtualGenerator", "in_every_thread"]
