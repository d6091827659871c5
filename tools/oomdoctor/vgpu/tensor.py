"""The virtual tensor: shape, strides, dtype and device of the real thing, memory that is counted, data only when small.

To C++ it is a ``meta`` wrapper, so no binding ever tries to touch a real card, with or without CUDA in the build; only
Python sees the pretended device. Values, where they exist, are an ordinary CPU tensor with the same layout.
"""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu import host_work
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.host import ANONYMOUS
from oomdoctor.vgpu.storage import ACTIVATIONS, Storage

_META = torch.device("meta")
_CPU = torch.device("cpu")
_make = torch.Tensor._make_wrapper_subclass

FLOAT_VALUES_MAX = 1 << 14
"""Floating tensors of up to this many elements keep their values, others do not ..."""
INDEX_VALUES_MAX = 1 << 20
"""... integers and booleans longer, because they steer control flow (ids, masks, positions)."""


class Spec:
    """A layout, interned: two tensors of equal layout share one object, which makes it a cheap cache key."""

    __slots__ = ("device", "dtype", "extent", "itemsize", "key", "numel", "offset", "shape", "stride")

    def __init__(self, key: tuple[Any, ...]) -> None:
        self.key = key
        self.shape, self.stride, self.offset, self.dtype, self.device = key
        numel = 1
        extent = 1
        for n, s in zip(self.shape, self.stride, strict=True):
            numel *= n
            extent += (n - 1) * s
        self.numel = numel
        self.itemsize = self.dtype.itemsize
        self.extent = 0 if numel == 0 else self.offset + extent

    @property
    def nbytes(self) -> int:
        """Bytes of a storage that just holds this layout."""
        return self.extent * self.itemsize

    def keeps_values(self) -> bool:
        limit = FLOAT_VALUES_MAX if self.dtype.is_floating_point or self.dtype.is_complex else INDEX_VALUES_MAX
        return self.numel <= limit


_specs: dict[tuple[Any, ...], Spec] = {}


def spec_of(
    shape: tuple[int, ...], stride: tuple[int, ...], offset: int, dtype: torch.dtype, device: torch.device
) -> Spec:
    key = (shape, stride, offset, dtype, device)
    spec = _specs.get(key)
    if spec is None:
        spec = _specs[key] = Spec(key)
    return spec


def spec_like(t: torch.Tensor, device: torch.device) -> Spec:
    """The layout of a plain or meta tensor, on ``device``."""
    return spec_of(tuple(t.size()), tuple(t.stride()), t.storage_offset(), t.dtype, device)


class VirtualTensor(torch.Tensor):
    """See the module docstring. Build with :func:`make`, :func:`empty_virtual` or :func:`wrap`."""

    _spec: Spec
    _storage_handle: Storage
    _value: torch.Tensor | None

    @staticmethod
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Libraries rebuild tensors by calling their class (``type(t)(data, requires_grad=...)``): take the data."""
        data = args[0] if args else kwargs.get("data")
        if isinstance(data, VirtualTensor):
            out = data.detach()
        elif isinstance(data, torch.Tensor) and data.device.type == "meta":
            # accelerate's empty models: the parameter leaves memory for good and must not be counted on the host.
            return torch.nn.Parameter(data.detach(), requires_grad=bool(kwargs.get("requires_grad", False)))
        elif isinstance(data, torch.Tensor):
            out = wrap(data, data.device)
        else:
            raise TypeError("a virtual tensor is made from a tensor")
        return out.requires_grad_(bool(kwargs.get("requires_grad", False))) if kwargs.get("requires_grad") else out

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    # ------------------------------------------------------------------ identity
    @property
    def device(self) -> torch.device:
        return self._spec.device

    @property
    def is_cuda(self) -> bool:
        return self._spec.device.type == "cuda"

    @property
    def is_cpu(self) -> bool:
        return self._spec.device.type == "cpu"

    @property
    def is_meta(self) -> bool:
        return False

    def get_device(self) -> int:
        return self._spec.device.index if self._spec.device.type == "cuda" else -1

    def __repr__(self, **kwargs: Any) -> str:
        value = self.value()
        if value is not None:
            text = torch.Tensor.__repr__(value)
            return text[:-1] + f", device='{self.device}')" if self.is_cuda else text
        return f"tensor(..., size={tuple(self.shape)}, dtype={self.dtype}, device='{self.device}')"

    def __format__(self, spec: str) -> str:
        value = self.value()
        return format(value if value is not None else 0.0 if self.dim() == 0 else repr(self), spec)

    # ------------------------------------------------------------------ memory
    @property
    def data(self) -> Any:
        return self.detach()

    @data.setter
    def data(self, new: torch.Tensor) -> None:
        if not isinstance(new, VirtualTensor):
            new = wrap(new, _CPU)
        with torch._C.DisableTorchFunctionSubclass():
            torch._C.TensorBase.data.__set__(self, new)
        old = self._storage_handle
        self._spec, self._storage_handle, self._value = new._spec, new._storage_handle, new._value
        if old.weights_of:
            new._storage_handle.mark_weights(old.weights_of)

    def data_ptr(self) -> int:
        return self._storage_handle.address + self._spec.offset * self._spec.itemsize

    def untyped_storage(self) -> Any:
        from oomdoctor.vgpu.untyped import VirtualUntypedStorage

        return VirtualUntypedStorage(self._storage_handle, self._spec.device)

    def storage(self) -> Any:
        return self.untyped_storage()

    def is_pinned(self, device: Any = None) -> bool:
        return self._storage_handle.kind == "pinned"

    def pin_memory(self, device: Any = None) -> Any:
        if self.is_pinned():
            return self
        world = _world.current()
        # The pinned copy is dense: a view pins only what it shows.
        copy = _pinned_copy(self, world.host)
        world.gpu.clock.host += host_work.pin(self.numel() * self.element_size())
        return copy

    def record_stream(self, stream: Any) -> None:
        if self.is_cuda:
            gpu = _world.current().place(self.device)
            gpu.allocator.record_stream(self._storage_handle.block, getattr(stream, "stream_id", 0))

    def share_memory_(self) -> Any:
        return self

    # ------------------------------------------------------------------ values
    def value(self) -> torch.Tensor | None:
        """The real data, or None. Valid until the next write to the same storage."""
        if self._value is not None and self._storage_handle.concrete:
            return self._value
        return None

    def value_or_zeros(self) -> torch.Tensor:
        """Real data where it exists, else zeros of the right shape (pictures, arrays for savers)."""
        value = self.value()
        if value is not None:
            return value
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            # One element seen through zero strides: a picture nobody will look at costs no memory.
            return torch.zeros((), dtype=self.dtype).expand(self.shape)

    def numpy(self, *, force: bool = False) -> Any:
        if self.is_cuda and not force:
            raise TypeError(
                f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
                "host memory first."
            )
        if self.dtype == torch.bfloat16:
            raise TypeError("Got unsupported ScalarType BFloat16")
        value = self.value()
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            if value is not None:
                return value.numpy()
            from oomdoctor.vgpu.blank import blank

            return blank(torch.zeros((), dtype=self.dtype).numpy(), tuple(self.shape))

    def __array__(self, dtype: Any = None) -> Any:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def tolist(self) -> Any:
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            return self.value_or_zeros().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        with torch.no_grad():
            out = self.detach().clone()
        if getattr(self, "_is_param", False):
            out = torch.nn.Parameter(out, requires_grad=self.requires_grad)
        memo[id(self)] = out
        return out

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Pickled as an empty meta tensor: enough for a file of the right keys, and no gigabytes of zeros.
        return torch.empty(self.shape, dtype=self.dtype, device=_META).__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from oomdoctor.vgpu.dispatch import dispatch

        return dispatch(func, args, kwargs or {})


def make(spec: Spec, storage: Storage, value: torch.Tensor | None = None) -> VirtualTensor:
    """A virtual tensor of layout ``spec`` on ``storage``."""
    t: VirtualTensor = _make(
        VirtualTensor,
        spec.shape,
        strides=spec.stride,
        storage_offset=spec.offset,
        dtype=spec.dtype,
        device=_META,
    )
    t._spec = spec
    t._storage_handle = storage
    t._value = value
    if value is not None:
        storage.concrete = True
    return t


def fresh(spec: Spec, value: torch.Tensor | None = None, kind: str | None = None) -> VirtualTensor:
    """A virtual tensor on new memory of its device."""
    place = _world.current().place(spec.device)
    if kind is None:
        kind = ACTIVATIONS if spec.device.type == "cuda" else ANONYMOUS
    return make(spec, place.take(spec.nbytes, kind), value)


def empty_virtual(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device = _CPU, host: str = ANONYMOUS
) -> VirtualTensor:
    """A contiguous, value-less virtual tensor. ``host`` says which kind of host memory holds it (CPU only)."""
    device = _world.normal_device(device)
    spec = spec_of(tuple(shape), contiguous_strides(tuple(shape)), 0, dtype, device)
    return fresh(spec, kind=host if device.type == "cpu" else ACTIVATIONS)


def wrap(t: torch.Tensor, device: torch.device) -> VirtualTensor:
    """A copy of a plain tensor as a virtual one on ``device``; keeps the values when they are few."""
    t = t.detach()
    if t.layout != torch.strided:
        t = t.to_dense()
    dense = t.contiguous() if t.storage_offset() or not is_dense(t) else t
    spec = spec_of(tuple(dense.size()), tuple(dense.stride()), 0, dense.dtype, device)
    keep = t.device.type != "meta" and spec.keeps_values()
    return fresh(spec, dense.clone() if keep else None)


def is_dense(t: torch.Tensor) -> bool:
    """Every element of its memory range exactly once, in whatever order of dimensions."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(t.stride(), t.shape, strict=True) if n != 1):
        if stride != expected:
            return t.numel() == 0
        expected *= size
    return True


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * max(shape[i + 1], 1)
    return tuple(strides)


def _pinned_copy(t: VirtualTensor, host: Any) -> VirtualTensor:
    spec = spec_of(tuple(t.shape), contiguous_strides(tuple(t.shape)), 0, t.dtype, _CPU)
    value = t.value()
    pinned = make(spec, host.take(spec.nbytes, "pinned"), None if value is None else value.contiguous().clone())
    if t._storage_handle.weights_of:
        pinned._storage_handle.mark_weights(t._storage_handle.weights_of)
    return pinned
