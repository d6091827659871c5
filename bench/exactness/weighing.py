"""What a really loaded model weighs, in the words of a measurement; offloading and casting are done by diffusers itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch


def parts(tensor: Any) -> Iterator[Any]:
    """The plain tensors of a parameter: a quantised one holds several, and the scales beside it."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from parts(getattr(tensor, name))
        return
    yield tensor
    for extra in (getattr(tensor, "quant_state", None), getattr(tensor, "SCB", None)):
        yield from _state(extra)


def _state(state: Any) -> Iterator[Any]:
    if isinstance(state, torch.Tensor):
        yield state
    elif state is not None:
        for value in vars(state).values():
            if isinstance(value, torch.Tensor) or hasattr(value, "absmax"):
                yield from _state(value)


def nbytes(tensors: Iterable[Any]) -> int:
    """Bytes of tensors, each one once."""
    return sum(p.numel() * p.element_size() for t in {id(t): t for t in tensors}.values() for p in parts(t))


def held(module: Any) -> list[Any]:
    return [*module.parameters(), *module.buffers()]


def weigh(load: Callable[[], Any]) -> dict[str, Any]:
    """The figures of a measurement's component. ``load`` is called once for each way of treating the model."""
    model = load()
    found: dict[str, Any] = {
        "loaded": nbytes(held(model)),
        "params": sum(elements(p) for p in model.parameters()),
        "leaf": max(nbytes([*m._parameters.values(), *m._buffers.values()]) for m in _present(model)),
    }
    if any(hasattr(p, "__tensor_flatten__") or hasattr(p, "quant_state") for p in model.parameters()) or any(
        p.dtype in (torch.int8, torch.uint8) for p in model.parameters()
    ):
        return found
    found["pinned"] = pinned(held(model))
    blocks, unmatched = groups(model)
    found |= {"block": max(blocks, default=0), "blocks": sum(blocks), "unmatched": unmatched, "fp8": casted(load())}
    return found


def elements(parameter: Any) -> int:
    """Elements of a parameter, of a packed one those that are packed."""
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None) or getattr(parameter, "quant_shape", None)
    return math.prod(shape) if shape is not None else int(parameter.numel())


def _present(model: Any) -> Iterator[Any]:
    for module in model.modules():
        # Absent parameters are None.
        module._parameters = {k: v for k, v in module._parameters.items() if v is not None}
        module._buffers = {k: v for k, v in module._buffers.items() if v is not None}
        yield module


def pinned(tensors: Iterable[Any]) -> int:
    """Page-locked copies of tensors, as PyTorch's host allocator rounds each (see bench/oracle/compare_pinned.py)."""
    sizes = [t.numel() * t.element_size() for t in {id(t): t for t in tensors}.values()]
    return sum(1 << (n - 1).bit_length() for n in sizes if n)


def groups(model: Any) -> tuple[list[int], int]:
    """Bytes of every block that diffusers' block-level offloading moves by itself, and of what stays meanwhile: the rest
    of the model, and of the parts that move when they run the largest without its blocks."""
    from diffusers.hooks import apply_group_offloading

    cpu = torch.device("cpu")
    apply_group_offloading(
        model, onload_device=cpu, offload_device=cpu, offload_type="block_level", num_blocks_per_group=1
    )
    seen: dict[int, Any] = {}
    for module in model.modules():
        registry = getattr(module, "_diffusers_hook", None)
        for hook in registry.hooks.values() if registry is not None else ():
            group = getattr(hook, "group", None)
            if group is not None:
                seen[id(group)] = group
    blocks, rests, unmatched = [], [0], 0
    for group in seen.values():
        size = nbytes([t for m in group.modules for t in held(m)] + [*group.parameters, *group.buffers])
        if group.onload_leader is model:
            unmatched += size
        elif group.onload_leader not in group.modules:
            rests.append(size)
        else:
            blocks.append(size)
    return blocks, unmatched + max(rests)


def casted(model: Any) -> int:
    """Bytes after layerwise casting to fp8: by the model's own method, else by the function."""
    from diffusers.hooks import apply_layerwise_casting

    dtype = next(model.parameters()).dtype
    if hasattr(model, "enable_layerwise_casting"):
        model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
    else:
        apply_layerwise_casting(model, torch.float8_e4m3fn, dtype)
    return nbytes(held(model))
