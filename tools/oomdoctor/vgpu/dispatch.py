"""One operation on virtual tensors: check devices, give memory, carry values where they exist, advance the clock."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu import autocast, costs, rules, shapes
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.allocator import OutOfCardMemory
from oomdoctor.vgpu.refusals import as_torch
from oomdoctor.vgpu.tensor import Spec, VirtualTensor, fresh, make, spec_like
from oomdoctor.vgpu.world import CPU

aten = torch.ops.aten

MIXED_DEVICES_OK = {
    aten.copy_.default,
    aten._to_copy.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._has_compatible_shallow_copy_type.default,
}


class UnknownOperation(RuntimeError):
    """An operation without meta kernel and without rule. Named, never counted as zero."""


class UnknownValue(RuntimeError):
    """The program asked for a value that no virtual run can know."""


def dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one operator. Raises ``torch.OutOfMemoryError`` like the card would."""
    world = _world.current()
    world.ops += 1
    try:
        if autocast.state.enabled:
            args = autocast.cast_for(func, args)
        return _dispatch(func, args, kwargs, world)
    except OutOfCardMemory as error:
        raise as_torch(error) from None


def _dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], world: _world.World) -> Any:
    tensors: list[torch.Tensor] = []
    _collect(args, tensors)
    if kwargs:
        _collect(kwargs.values(), tensors)
    device = _result_device(func, args, kwargs, tensors)
    if device.type == "meta":
        raise UnknownOperation(
            f"{func}: a virtual tensor met a tensor on the meta device, which has no data to compute with"
        )
    special = rules.registry.get(func)
    if special is not None:
        result = special(rules.Call(func, args, kwargs, device))
        if result is not rules.DECLINE:
            return result
    return ordinary(func, args, kwargs, tensors, device, world)


def ordinary(
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tensors: list[torch.Tensor],
    device: torch.device,
    world: _world.World,
) -> Any:
    """The path of nearly all operations: results as the meta kernel says."""
    try:
        plan = shapes.plan_for(func, args, kwargs, device)
    except shapes.Unsupported as error:
        values = _values(func, args, kwargs, tensors, None)
        if values is None:
            raise UnknownOperation(
                f"the virtual GPU has no rule for {error}: torch has no shape function for it and its inputs have no "
                "values here. Add a rule file under oomdoctor/vgpu/rules (its docstring shows how)."
            ) from None
        return _wrap_result(values, device)
    values = _values(func, args, kwargs, tensors, plan)
    outputs = []
    for i, out in enumerate(plan.outputs):
        if out.how is shapes.NEW:
            spec = out.spec
            assert spec is not None
            value = values[i] if values is not None and spec.keeps_values() else None
            outputs.append(fresh(spec, _as_new(value)))
        elif out.how is shapes.ALIAS:
            source = tensors[out.source]
            assert out.spec is not None
            if isinstance(source, VirtualTensor):
                outputs.append(make_view(source, out.spec, values[i] if values is not None else None))
            else:
                outputs.append(values[i] if values is not None else source)
        elif out.how is shapes.SAME:
            target = tensors[out.source]
            if values is None and isinstance(target, VirtualTensor):
                target._storage_handle.concrete = False
            outputs.append(target)
        else:
            outputs.append(out.value)
    if device.type == "cuda":
        gpu = world.gpus[device.index]
        if plan.workspace:
            gpu.scratch(*plan.workspace)
        if plan.bytes_moved:
            gpu.clock.launch(gpu.stream, costs.seconds(gpu.card, plan.flops, plan.flops_dtype, plan.bytes_moved))
    return outputs[0] if plan.rebuild is None else plan.rebuild(outputs)


def make_view(source: VirtualTensor, spec: Spec, value: torch.Tensor | None) -> VirtualTensor:
    """A view on the memory of ``source``. It gets values only if its storage still has them."""
    storage = source._storage_handle
    concrete = storage.concrete
    out = make(spec, storage, value if concrete else None)
    storage.concrete = concrete
    return out


def _collect(xs: Any, into: list[torch.Tensor]) -> None:
    """Tensors among the arguments in order, each once: the order :mod:`shapes` numbers its sources by."""
    for x in xs:
        if isinstance(x, torch.Tensor):
            for seen in into:
                if seen is x:
                    break
            else:
                into.append(x)
        elif type(x) is list or type(x) is tuple:
            _collect(x, into)


def _result_device(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[torch.Tensor]
) -> torch.device:
    asked = kwargs.get("device")
    if asked is not None:
        device = _world.normal_device(asked)
        if device.type == "meta":
            # C++ composites ask for "the device of this tensor", which for them is meta.
            return tensors[0].device if tensors else device
        return device
    if func is aten.copy_.default:
        return args[0].device
    found: torch.device | None = None
    found_dim = 0
    for t in tensors:
        d = t.device
        if found is None or (d is not found and d != found):
            dim = t.dim()
            if found is None:
                found, found_dim = d, dim
            elif dim and found_dim and func not in MIXED_DEVICES_OK:
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found at least two devices, {found} and {d}! "
                    f"(when checking argument in method {func._schema.name.split('::')[-1]})"
                )
            elif (dim and not found_dim) or (found.type == "cpu" and d.type == "cuda" and dim >= found_dim):
                found, found_dim = d, dim
    return found if found is not None else CPU


def _values(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[torch.Tensor], plan: shapes.Plan | None
) -> Any:
    """Real results as a list, when every input has values and the results are few; else None."""
    if plan is not None:
        for out in plan.outputs:
            if out.how is shapes.NEW and not out.spec.keeps_values():  # type: ignore[union-attr]
                return None
    for t in tensors:
        if isinstance(t, VirtualTensor):
            if t._value is None or not t._storage_handle.concrete:
                return None
        elif t.device.type == "meta":
            return None
    real_args = tuple(map(_real, args))
    real_kwargs = {k: _real(v) for k, v in kwargs.items() if k != "pin_memory"}
    try:
        with torch._C.DisableTorchFunction():
            result = func(*real_args, **real_kwargs)
    except NotImplementedError:
        return None  # a type the CPU has no kernel for (fp8): shapes only
    if plan is None:
        return result
    return list(result) if isinstance(result, (list, tuple)) else [result]


def _real(x: Any) -> Any:
    if isinstance(x, VirtualTensor):
        return x._value
    if type(x) is list or type(x) is tuple:
        return type(x)(map(_real, x))
    if isinstance(x, torch.device):
        return CPU
    return x


def _as_new(value: torch.Tensor | None) -> torch.Tensor | None:
    return None if value is None else value.detach()


def _wrap_result(result: Any, device: torch.device) -> Any:
    if isinstance(result, torch.Tensor):
        return fresh(spec_like(result.contiguous(), device), result.contiguous())
    if isinstance(result, (list, tuple)):
        return type(result)(_wrap_result(r, device) for r in result)
    return result
