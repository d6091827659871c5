"""``torch.cuda``, ``torch.accelerator`` and their C++ corners, answered by the virtual card.

Put in place before diffusers is imported, which asks for the device at import. :class:`Patches` remembers what stood
there, so that tests can take a virtual card away again.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable
from typing import Any

import torch

from oomdoctor.vgpu import streams
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.generator import VirtualGenerator
from oomdoctor.vgpu.gpu import Gpu

_ABSENT = object()


class Patches:
    """Attributes replaced for the time of a virtual run."""

    def __init__(self) -> None:
        self._saved: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        self._saved.append(
            (
                owner,
                name,
                owner.__dict__.get(name, _ABSENT) if hasattr(owner, "__dict__") else getattr(owner, name, _ABSENT),
            )
        )
        setattr(owner, name, value)

    def undo(self) -> None:
        while self._saved:
            owner, name, value = self._saved.pop()
            if value is _ABSENT:
                with contextlib.suppress(AttributeError):
                    delattr(owner, name)
            else:
                setattr(owner, name, value)


def _gpu(device: Any = None) -> Gpu:
    world = _world.current()
    if device is None:
        return world.gpu
    index = _world.normal_device(device).index or 0
    if index >= len(world.gpus):
        raise RuntimeError("CUDA error: invalid device ordinal")
    return world.gpus[index]


def _properties(device: Any = None) -> Any:
    card = _gpu(device).card
    major, minor = card.compute_capability
    return types.SimpleNamespace(
        name=card.label,
        major=major,
        minor=minor,
        total_memory=card.total_bytes,
        multi_processor_count=card.sm_count,
        is_integrated=0,
        is_multi_gpu_board=0,
        warp_size=32,
        max_threads_per_multi_processor=1536,
        regs_per_multiprocessor=65536,
        shared_memory_per_block_optin=101376,
        L2_cache_size=4 << 20,
        gcnArchName="",
        uuid="virtual",
        type="gpu",
    )


def _memory_stats(device: Any = None) -> dict[str, Any]:
    return dict(_gpu(device).allocator.memory_stats())


def _empty_cache() -> None:
    for gpu in _world.current().gpus:
        gpu.allocator.empty_cache()


def _synchronize(device: Any = None) -> None:
    _gpu(device).clock.synchronize()


def _set_device(device: Any) -> None:
    index = _world.normal_device(device).index
    if index is not None and index >= 0:
        _gpu(index)
        _world.current().current_gpu = index


def _reset_peak(device: Any = None) -> None:
    _gpu(device).allocator.reset_peak_stats()


def _record_memory_history(
    enabled: Any = "all",
    context: Any = "all",
    stacks: str = "all",
    max_entries: int = sys.maxsize,
    device: Any = None,
    **_: Any,
) -> None:
    """``torch.cuda.memory._record_memory_history``; the stacks it can add are not kept."""
    _gpu(device).allocator.record_history(bool(enabled), None if max_entries == sys.maxsize else max_entries)


class _DeviceContext:
    """``with torch.cuda.device(i):``"""

    def __init__(self, device: Any) -> None:
        self.index = _world.normal_device(device).index if device is not None else _world.current().current_gpu
        self.outer = 0

    def __enter__(self) -> None:
        self.outer = _world.current().current_gpu
        _world.current().current_gpu = self.index

    def __exit__(self, *exc: object) -> None:
        _world.current().current_gpu = self.outer


class _DeviceOf(_DeviceContext):
    def __init__(self, tensor: Any) -> None:
        super().__init__(tensor.device if tensor.is_cuda else None)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _functions() -> dict[str, Callable[..., Any]]:
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": _nothing,
        "_lazy_init": _nothing,
        "_is_compiled": lambda: True,
        "device_count": lambda: len(_world.current().gpus),
        "_device_count_nvml": lambda: len(_world.current().gpus),
        "current_device": lambda: _world.current().current_gpu,
        "set_device": _set_device,
        "get_device_name": lambda device=None: _gpu(device).card.label,
        "get_device_properties": _properties,
        "get_device_capability": lambda device=None: _gpu(device).card.compute_capability,
        "get_arch_list": lambda: [f"sm_{a}{b}" for a, b in {g.card.compute_capability for g in _world.current().gpus}],
        "is_bf16_supported": lambda including_emulation=True: (
            including_emulation or _gpu().card.compute_capability >= (8, 0)
        ),
        "can_device_access_peer": lambda a, b: True,
        "mem_get_info": lambda device=None: _gpu(device).allocator.mem_get_info(),
        "memory_allocated": lambda device=None: _gpu(device).allocator.stats.total.allocated_bytes,
        "max_memory_allocated": lambda device=None: _gpu(device).allocator.stats.total.allocated_bytes_peak,
        "memory_reserved": lambda device=None: _gpu(device).allocator.stats.total.reserved_bytes,
        "max_memory_reserved": lambda device=None: _gpu(device).allocator.stats.total.reserved_bytes_peak,
        "memory_cached": lambda device=None: _gpu(device).allocator.stats.total.reserved_bytes,
        "max_memory_cached": lambda device=None: _gpu(device).allocator.stats.total.reserved_bytes_peak,
        "memory_stats": _memory_stats,
        "memory_stats_as_nested_dict": lambda device=None: _gpu(device).allocator.memory_stats_as_nested_dict(),
        "host_memory_stats": lambda: _world.current().host.pinned_stats(),
        "memory_snapshot": lambda *a, **k: _gpu().allocator.snapshot()["segments"],
        "empty_cache": _empty_cache,
        "ipc_collect": _nothing,
        "synchronize": _synchronize,
        "reset_peak_memory_stats": _reset_peak,
        "reset_max_memory_allocated": _reset_peak,
        "reset_max_memory_cached": _reset_peak,
        "reset_accumulated_memory_stats": lambda device=None: _gpu(device).allocator.reset_accumulated_stats(),
        "set_per_process_memory_fraction": lambda fraction, device=None: _gpu(device).allocator.set_memory_fraction(
            fraction
        ),
        "manual_seed": _nothing,
        "manual_seed_all": _nothing,
        "seed": _nothing,
        "seed_all": _nothing,
        "get_rng_state": lambda *a: torch.get_rng_state(),
        "set_rng_state": _nothing,
        "get_rng_state_all": list,
        "set_rng_state_all": _nothing,
        "utilization": lambda device=None: 0,
        "Stream": streams.Stream,
        "Event": streams.Event,
        "stream": streams.StreamContext,
        "StreamContext": streams.StreamContext,
        "set_stream": lambda s: setattr(_gpu(s.device), "stream", s.stream_id),
        "current_stream": streams.current_stream,
        "default_stream": streams.default_stream,
        "device": _DeviceContext,
        "device_of": _DeviceOf,
        "current_blas_handle": lambda: 0,
        "is_current_stream_capturing": lambda: False,
    }


_BINDINGS: dict[str, Callable[..., Any]] = {
    # Libraries that probe CUDA at import (dynamo, bitsandbytes, triton, xformers) look for these in torch._C.
    "_cuda_getCurrentRawStream": lambda index=0: 0,
    "_cuda_getCurrentStream": lambda index=0: (0, index, 1),
    "_cuda_getDevice": lambda: _world.current().current_gpu,
    "_cuda_setDevice": lambda index: _set_device(int(index)),
    "_cuda_exchangeDevice": lambda index: _exchange_device(int(index)),
    "_cuda_maybeExchangeDevice": lambda index: _exchange_device(int(index)),
    "_cuda_getDeviceCount": lambda: len(_world.current().gpus),
    "_cuda_isInBadFork": lambda: False,
    "_cuda_getArchFlags": lambda: " ".join(
        f"sm_{a}{b}" for a, b in {g.card.compute_capability for g in _world.current().gpus}
    ),
    "_cuda_synchronize": lambda: _synchronize(),
    "_cuda_emptyCache": lambda: _empty_cache(),
    "_host_emptyCache": lambda: _world.current().host.empty_pinned_cache(),
}


def _exchange_device(index: int) -> int:
    world = _world.current()
    outer = world.current_gpu
    if index >= 0:
        world.current_gpu = index
    return outer


_MEMORY_MODULE = (
    "memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved", "memory_stats",
    "memory_stats_as_nested_dict", "memory_snapshot", "empty_cache", "mem_get_info", "reset_peak_memory_stats",
    "reset_accumulated_memory_stats", "set_per_process_memory_fraction", "host_memory_stats",
)  # fmt: skip


def _accelerator_functions() -> dict[str, Callable[..., Any]]:
    return {
        "is_available": lambda: True,
        "current_accelerator": lambda *a, **k: torch.device("cuda"),
        "device_count": lambda: len(_world.current().gpus),
        "current_device_index": lambda: _world.current().current_gpu,
        "current_device_idx": lambda: _world.current().current_gpu,
        "set_device_index": _set_device,
        "set_device_idx": _set_device,
        "current_stream": streams.current_stream,
        "synchronize": _synchronize,
        "empty_cache": _empty_cache,
        "memory_allocated": lambda device=None: _gpu(device).allocator.stats.total.allocated_bytes,
        "max_memory_allocated": lambda device=None: _gpu(device).allocator.stats.total.allocated_bytes_peak,
        "memory_reserved": lambda device=None: _gpu(device).allocator.stats.total.reserved_bytes,
        "max_memory_reserved": lambda device=None: _gpu(device).allocator.stats.total.reserved_bytes_peak,
        "memory_stats": _memory_stats,
        "reset_peak_memory_stats": _reset_peak,
        "get_memory_info": lambda device=None: _gpu(device).allocator.mem_get_info(),
    }


def _own(fn: Any) -> Any:
    """A function object of its own: dynamo keeps a table of torch's functions and refuses one that stands there twice."""
    if isinstance(fn, type):
        return fn

    def function(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return function


def install(patches: Patches) -> None:
    """Replace the Python faces of CUDA."""
    for name, value in _functions().items():
        patches.set(torch.cuda, name, _own(value))
    for name in _MEMORY_MODULE:
        patches.set(torch.cuda.memory, name, torch.cuda.__dict__[name])
    patches.set(torch.cuda.memory, "_record_memory_history", _record_memory_history)
    patches.set(torch.cuda.memory, "_snapshot", lambda device=None, **_: _gpu(device).allocator.snapshot())
    for name, value in _accelerator_functions().items():
        if hasattr(torch.accelerator, name):
            patches.set(torch.accelerator, name, _own(value))
    patches.set(torch, "Generator", VirtualGenerator)
    patches.set(torch, "Stream", streams.Stream)
    patches.set(torch, "Event", streams.Event)
    patches.set(torch.backends.cuda, "is_built", lambda: True)
    patches.set(torch.backends.cudnn, "is_available", lambda: True)
    # Recurrent layers ask before they lay their weights out for cuDNN in C++; none of the models here has any.
    patches.set(torch.backends.cudnn, "is_acceptable", lambda tensor: False)
    patches.set(torch.cuda.graphs, "is_current_stream_capturing", torch.cuda.is_current_stream_capturing)
    for name, value in _BINDINGS.items():
        patches.set(torch._C, name, _own(value))
    if torch.version.cuda is None:
        patches.set(torch.version, "cuda", "12.8")
