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

from oomdoctor.vgpu import autocast
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.allocator import OutOfCardMemory
from oomdoctor.vgpu.dispatch import dispatch
from oomdoctor.vgpu.generator import VirtualGenerator
from oomdoctor.vgpu.refusals import as_torch
from oomdoctor.vgpu.rules.attention import sdpa
from oomdoctor.vgpu.tensor import VirtualTensor, fresh, make, spec_like, spec_of, wrap

aten = torch.ops.aten
CPU = torch.device("cpu")
LARGE_HOST_BYTES = 32 << 20
"""Plain CPU tensors from this size on become virtual, so that a script's big buffers are counted, not made."""

_FACTORIES = {
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint, torch.arange,
    torch.linspace, torch.logspace, torch.eye, torch.empty_strided, torch.randperm, torch.scalar_tensor,
    torch.tril_indices, torch.triu_indices, torch.empty_permuted, torch.normal,
}  # fmt: skip
_LIKE = {
    torch.empty_like, torch.zeros_like, torch.ones_like, torch.rand_like, torch.randn_like, torch.full_like,
    torch.randint_like,
}  # fmt: skip
_FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray}
_SDPA = torch.nn.functional.scaled_dot_product_attention
_DATA_SET = torch.Tensor.data.__set__


class FunctionMode(TorchFunctionMode):
    """Python-level calls."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if types and any(_is_wrapper(t) for t in types):
            return _of_wrapper(func, types, args, kwargs)
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


class _Ambient(threading.local):
    device: torch.device | None = None
    wrapped: tuple[Any, ...] = ()
    """Calls on wrappers that are under way: (function, id of its first argument)."""


_ambient = _Ambient()


def _is_wrapper(kind: type) -> bool:
    """A tensor subclass that holds other tensors (torchao's quantised weights): it knows what an operation does to them."""
    return not issubclass(kind, VirtualTensor) and hasattr(kind, "__tensor_flatten__")


def _of_wrapper(func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """Let the wrapper answer; moves go straight to its operator, since C++ would ask for a real card first."""
    move = _WRAPPER_MOVES.get(func)
    if move is not None and _is_wrapper(type(args[0])):
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
                result = kind.__torch_function__(func, types, args, kwargs) if _is_wrapper(kind) else NotImplemented
                if result is not NotImplemented:
                    return result
    finally:
        _ambient.wrapped = outer
    return func(*args, **kwargs)


def _move_wrapper(source: Any, target: torch.device, dtype: torch.dtype | None, non_blocking: bool) -> Any:
    call = {"dtype": dtype or source.dtype, "device": target, "non_blocking": non_blocking}
    return type(source).__torch_dispatch__(aten._to_copy.default, (type(source),), (source,), call)


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
            return _operator_factory(func, args, kwargs, _world.normal_device(device))
        if device is not None and _ambient.device is not None and torch.device(device).type == "meta":
            return _operator_factory(func, args, kwargs, _ambient.device)
        if device is None or torch.device(device).type == "cpu":
            size = args[0] if args and func in _SIZED else None
            if (
                size is not None
                and _numel(size) * (kwargs.get("dtype") or torch.get_default_dtype()).itemsize >= LARGE_HOST_BYTES
            ):
                return _operator_factory(func, args, kwargs, CPU)
        return func(*args, **kwargs)


_SIZED = {
    aten.empty.memory_format, aten.zeros.default, aten.ones.default, aten.full.default, aten.randn.default,
    aten.rand.default, aten.randn.generator, aten.empty_strided.default,
}  # fmt: skip


def _numel(size: Any) -> int:
    n = 1
    for s in size:
        n *= int(s)
    return n


def _operator_factory(func: Any, args: Any, kwargs: Any, device: torch.device) -> Any:
    """A factory operator whose result lives on a virtual place: values when they are few, else shape only."""
    _world.current().ops += 1
    call = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "device")}
    shape_call = {k: v for k, v in call.items() if k != "generator"} if "generator" in call else call
    shape_func = aten.randn.default if func is aten.randn.generator else func
    plain = func is aten._to_copy.default
    meta = None if plain else shape_func(*args, **shape_call, device="meta")
    spec = spec_like(meta if meta is not None else args[0], device)
    value = None
    if plain:
        return _to(torch.Tensor.to, (args[0], device, kwargs.get("dtype") or args[0].dtype), {})
    if spec.keeps_values():
        value = func(*args, **call, device=CPU)
    try:
        return fresh(spec, value)
    except OutOfCardMemory as error:
        raise as_torch(error) from None


# ---------------------------------------------------------------------------- handlers of Python calls
def _factory(func: Any, args: Any, kwargs: Any) -> Any:
    device = kwargs.get("device")
    if device is None or (device := _world.normal_device(device)).type == "cpu":
        if not kwargs.get("pin_memory"):
            return NotImplemented
        return _pin(func, (func(*args, **{k: v for k, v in kwargs.items() if k != "pin_memory"}),), {})
    if device.type != "cuda":
        return NotImplemented
    call = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "device")}
    args = tuple(_scalars(a) for a in args)
    with torch._C.DisableTorchFunction():
        shape_call = {k: v for k, v in call.items() if k not in ("generator", "out")}
        meta = func(*args, **shape_call, device="meta")
        spec = spec_like(meta, device)
        value = func(*args, **call, device=CPU) if spec.keeps_values() else None
    return _fresh(spec, value, call.get("requires_grad", False))


def _scalars(x: Any) -> Any:
    """Zero-dimensional virtual tensors are accepted where torch accepts numbers (``arange(t.max())``)."""
    return x.item() if isinstance(x, VirtualTensor) and x.dim() == 0 else x


def _fresh(spec: Any, value: torch.Tensor | None, requires_grad: bool = False) -> Any:
    try:
        out = fresh(spec, value.detach() if value is not None else None)
    except OutOfCardMemory as error:
        raise as_torch(error) from None
    return out.requires_grad_() if requires_grad else out


def _like(func: Any, args: Any, kwargs: Any) -> Any:
    source = args[0]
    device = kwargs.get("device")
    if device is None:
        if not isinstance(source, VirtualTensor):
            return NotImplemented
        device = source.device
    device = _world.normal_device(device)
    small = source.numel() * (kwargs.get("dtype") or source.dtype).itemsize < LARGE_HOST_BYTES
    if device.type == "meta" or (device.type == "cpu" and not isinstance(source, VirtualTensor) and small):
        return NotImplemented
    call = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "device")}
    like = torch.empty_strided(source.size(), source.stride(), dtype=source.dtype, device="meta")
    with torch._C.DisableTorchFunction():
        meta = func(like, *args[1:], **{k: v for k, v in call.items() if k != "generator"})
        spec = spec_like(meta, device)
        value = None
        if spec.keeps_values():
            plain = torch.empty_strided(source.size(), source.stride(), dtype=source.dtype)
            value = func(plain, *args[1:], **call)
    return _fresh(spec, value, call.get("requires_grad", False))


def _from_data(func: Any, args: Any, kwargs: Any) -> Any:
    source = args[0] if args else kwargs.get("data", kwargs.get("obj"))
    if type(source).__name__ == "Blank":  # whoever made one has numpy, which torch can do without
        from oomdoctor.vgpu.blank import as_tensor

        virtual = as_tensor(source)
        args, source = (args, source) if virtual is None else ((virtual, *args[1:]), virtual)
    device = kwargs.get("device")
    if device is None:
        if isinstance(source, VirtualTensor):
            dtype = kwargs.get("dtype")
            if func is torch.tensor:
                source = source.detach().clone()
            return source if dtype is None else source.to(dtype)
        if isinstance(source, (list, tuple)) and any(isinstance(s, VirtualTensor) for s in source):
            source = [_scalars(s) for s in source]
            return func(source, *args[1:], **kwargs)
        return NotImplemented
    device = _world.normal_device(device)
    if isinstance(source, torch.Tensor):
        return _to(torch.Tensor.to, (source, device, kwargs.get("dtype") or source.dtype), {})
    if device.type != "cuda":
        return NotImplemented
    if isinstance(source, (list, tuple)):
        source = [_scalars(s) for s in source]
    call = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "device", "data")}
    with torch._C.DisableTorchFunction():
        plain = func(source, *args[1:], **call)
    return wrap(plain, device)


def _to(func: Any, args: Any, kwargs: Any) -> Any:
    """``Tensor.to`` in all its spellings; a no-op returns the very tensor, as torch does."""
    source = args[0]
    rest = list(args[1:])
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    non_blocking, copy = kwargs.get("non_blocking", False), kwargs.get("copy", False)
    other = kwargs.get("other")
    if rest and isinstance(rest[0], torch.Tensor):
        other = rest.pop(0)
    if other is not None:
        device, dtype = other.device, other.dtype
    elif rest and isinstance(rest[0], torch.dtype):
        dtype = rest.pop(0)
    elif rest and (rest[0] is None or isinstance(rest[0], (str, int, torch.device))) and not isinstance(rest[0], bool):
        device = rest.pop(0)
        if rest and (rest[0] is None or isinstance(rest[0], torch.dtype)):
            dtype = rest.pop(0)
    if rest:
        non_blocking = rest.pop(0)
    if rest:
        copy = rest.pop(0)
    target = source.device if device is None else _world.normal_device(device)
    if _is_wrapper(type(source)):
        if target == source.device and dtype in (None, source.dtype) and not copy:
            return source
        return _move_wrapper(source, target, dtype, bool(non_blocking))
    if not isinstance(source, VirtualTensor):
        if target.type != "cuda":
            return NotImplemented
        return _move_plain(source, target, dtype, bool(non_blocking))
    if target.type == "meta":
        return torch.empty_strided(source.size(), source.stride(), dtype=dtype or source.dtype, device="meta")
    dtype = dtype or source.dtype
    memory_format = kwargs.get("memory_format")
    same_format = memory_format in (None, torch.preserve_format) or source.is_contiguous(memory_format=memory_format)
    if target == source.device and dtype == source.dtype and not copy and same_format:
        return source
    call: dict[str, Any] = {"dtype": dtype, "device": target, "non_blocking": bool(non_blocking)}
    if memory_format is not None:
        call["memory_format"] = memory_format
    return aten._to_copy.default(source, **call)


def _move_plain(source: torch.Tensor, target: torch.device, dtype: torch.dtype | None, non_blocking: bool) -> Any:
    from oomdoctor.vgpu.rules.copies import transfer

    cast = source.detach() if dtype is None or dtype == source.dtype else source.detach().to(dtype)
    try:
        out = wrap(cast, target)
    except OutOfCardMemory as error:
        raise as_torch(error) from None
    transfer(source, target, source.numel() * source.element_size(), non_blocking)
    return out.requires_grad_() if source.requires_grad and torch.is_grad_enabled() else out


def _cuda(func: Any, args: Any, kwargs: Any) -> Any:
    device = args[1] if len(args) > 1 else kwargs.get("device")
    return _to(
        func, (args[0], "cuda" if device is None else device), {"non_blocking": kwargs.get("non_blocking", False)}
    )


def _cpu(func: Any, args: Any, kwargs: Any) -> Any:
    ours = isinstance(args[0], VirtualTensor) or _is_wrapper(type(args[0]))
    return _to(func, (args[0], CPU), {}) if ours else NotImplemented


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


def _set_data(func: Any, args: Any, kwargs: Any) -> Any:
    target, new = args
    if isinstance(new, VirtualTensor) and not isinstance(target, VirtualTensor):
        with torch._C.DisableTorchFunction():
            replacement = (
                torch.nn.Parameter(new, requires_grad=target.requires_grad)
                if isinstance(target, torch.nn.Parameter)
                else new
            )
            torch.utils.swap_tensors(target, replacement)
        return None
    return NotImplemented


def _pin(func: Any, args: Any, kwargs: Any) -> Any:
    """A plain CPU tensor becomes a virtual one in page-locked memory."""
    if isinstance(args[0], VirtualTensor):
        return NotImplemented
    with torch._C.DisableTorchFunction():
        plain = args[0].detach().contiguous()
        spec = spec_like(plain, CPU)
        value = plain.clone() if spec.keeps_values() else None
    return make(spec, _world.current().host.take(spec.nbytes, "pinned"), value)


def _set_item(func: Any, args: Any, kwargs: Any) -> Any:
    """``x[...] = 7``: C++ would make the number a tensor on the device that it sees, and its value would be lost."""
    target, where, value = args
    if not isinstance(target, VirtualTensor) or not isinstance(value, (bool, int, float, complex)):
        return NotImplemented
    with torch._C.DisableTorchFunction():
        plain = torch.tensor(value, dtype=target.dtype)
    return func(target, where, wrap(plain, target.device))


def _same_kind(func: Any, args: Any, kwargs: Any) -> Any:
    """May ``a.data = b`` be used: C++ would compare dispatch keys, which inference mode cannot ask of ours."""
    target, new = args
    if not isinstance(target, VirtualTensor) and not isinstance(new, VirtualTensor):
        return NotImplemented
    both = isinstance(target, VirtualTensor) and isinstance(new, VirtualTensor)
    return both and target.is_inference() == new.is_inference()


def _is_pinned(func: Any, args: Any, kwargs: Any) -> Any:
    return NotImplemented if isinstance(args[0], VirtualTensor) else False


def _new_factory(func: Any, args: Any, kwargs: Any) -> Any:
    """``x.new_zeros`` and its kin: like a factory on the device of ``x``."""
    source = args[0]
    device = kwargs.get("device")
    if not isinstance(source, VirtualTensor) and (device is None or _world.normal_device(device).type != "cuda"):
        return NotImplemented
    device = source.device if device is None else _world.normal_device(device)
    call = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "device")}
    call.setdefault("dtype", source.dtype)
    with torch._C.DisableTorchFunction():
        meta = func(torch.empty(0, device="meta", dtype=source.dtype), *args[1:], **call)
        spec = spec_of(tuple(meta.size()), tuple(meta.stride()), 0, meta.dtype, device)
        value = func(torch.empty(0, dtype=source.dtype), *args[1:], **call) if spec.keeps_values() else None
    return _fresh(spec, value, call.get("requires_grad", False))


def _pin_wrapper(func: Any, args: Any, kwargs: Any) -> Any:
    """A wrapper pins what it holds, and is pinned when that is."""
    op = aten._pin_memory.default if func is torch.Tensor.pin_memory else aten.is_pinned.default
    return type(args[0]).__torch_dispatch__(op, (type(args[0]),), (args[0],), {})


_WRAPPER_MOVES = {
    torch.Tensor.to: _to,
    torch.Tensor.cuda: _cuda,
    torch.Tensor.cpu: _cpu,
    torch.Tensor.pin_memory: _pin_wrapper,
    torch.Tensor.is_pinned: _pin_wrapper,
}
_HANDLERS: dict[Any, Any] = {
    **dict.fromkeys(_FACTORIES, _factory),
    **dict.fromkeys(_LIKE, _like),
    **dict.fromkeys(_FROM_DATA, _from_data),
    torch.Tensor.to: _to,
    torch.Tensor.cuda: _cuda,
    torch.Tensor.cpu: _cpu,
    torch.Tensor.pin_memory: _pin,
    torch.Tensor.is_pinned: _is_pinned,
    torch.Tensor.__setitem__: _set_item,
    torch._has_compatible_shallow_copy_type: _same_kind,
    _SDPA: _attention,
    _DATA_SET: _set_data,
    torch.Tensor.new_empty: _new_factory,
    torch.Tensor.new_zeros: _new_factory,
    torch.Tensor.new_ones: _new_factory,
    torch.Tensor.new_full: _new_factory,
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
