"""What an operation gives, without doing it: torch's own meta kernels, asked once per operation and layouts.

The answer of a meta kernel depends only on layouts and scalars, so it is kept; a second call with the same key costs a
dictionary lookup.
"""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu import costs, workspace
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.tensor import Spec, VirtualTensor, spec_of

_META = torch.device("meta")

NEW, ALIAS, SAME, OTHER = "new", "alias", "same", "other"


class Output:
    """One result. ``how``: ``new`` memory, a view (``alias``) of tensor input ``source``, that very input (``same``),
    or something that is no tensor (``other``, in ``value``)."""

    __slots__ = ("how", "source", "spec", "value")

    def __init__(self, how: str, source: int = -1, spec: Spec | None = None, value: Any = None) -> None:
        self.how, self.source, self.spec, self.value = how, source, spec, value


class Plan:
    """What one operation does: its results, and what it costs on a card."""

    __slots__ = ("bytes_moved", "flops", "flops_dtype", "outputs", "rebuild", "views_only", "workspace", "writes")

    def __init__(self, outputs: list[Output], rebuild: Any) -> None:
        self.outputs = outputs
        self.rebuild = rebuild
        """None for a single tensor, else the container type."""
        self.views_only = all(o.how != NEW for o in outputs)
        self.writes = any(o.how == SAME for o in outputs)
        self.workspace: tuple[int, ...] = ()
        self.flops = 0.0
        self.flops_dtype: torch.dtype | None = None
        self.bytes_moved = 0


_plans: dict[Any, Plan] = {}


class Unsupported(Exception):
    """The operation has no meta kernel and no rule of ours."""


def key_of(x: Any) -> Any:
    """A hashable stand-in for one argument; tensors become their layouts."""
    kind = type(x)
    if kind is VirtualTensor:
        return x._spec
    if kind is list or kind is tuple:
        return tuple(map(key_of, x))
    if x is None or kind is str or kind is torch.dtype or kind is torch.device:
        return x
    if kind is int or kind is float or kind is bool:
        return (kind, x)
    if isinstance(x, VirtualTensor):
        return x._spec
    if isinstance(x, torch.Tensor):
        return ("plain", tuple(x.size()), tuple(x.stride()), x.dtype, x.device)
    if isinstance(x, torch.Generator):
        return "generator"
    return x


def plan_for(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device) -> Plan:
    """The plan of ``func`` for arguments of these layouts; results land on ``device``.

    Raises what torch's meta kernel raises for wrong shapes, :class:`Unsupported` when there is none.
    """
    key = (func, device, tuple(map(key_of, args)), tuple((k, key_of(v)) for k, v in kwargs.items()) if kwargs else ())
    try:
        plan = _plans.get(key)
    except TypeError:  # an unhashable argument: work it out each time
        return _infer(func, args, kwargs, device)
    if plan is None:
        plan = _plans[key] = _infer(func, args, kwargs, device)
    return plan


def meta_of(spec: Spec) -> torch.Tensor:
    """A real meta tensor of this layout."""
    base = torch.empty(spec.extent, dtype=spec.dtype, device=_META)
    return base.as_strided(spec.shape, spec.stride, spec.offset)


class _Stripper:
    """Turns arguments into meta tensors and remembers whose storage is whose. Keeps no virtual tensor alive."""

    def __init__(self) -> None:
        self.metas: list[torch.Tensor] = []
        self.devices: list[torch.device] = []
        self.seen: dict[int, int] = {}
        self.by_storage: dict[int, int] = {}

    def strip(self, x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            known = self.seen.get(id(x))
            if known is not None:
                return self.metas[known]
            if isinstance(x, VirtualTensor):
                m = meta_of(x._spec)
            elif x.device.type == "meta":
                m = x
            else:
                m = torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device=_META)
            index = len(self.metas)
            self.seen[id(x)] = index
            self.by_storage[m.untyped_storage()._cdata] = index
            self.metas.append(m)
            self.devices.append(x.device)
            return m
        if type(x) is list or type(x) is tuple:
            return type(x)(map(self.strip, x))
        if isinstance(x, torch.device):
            return _META
        if isinstance(x, torch.Generator):
            return None
        return x

    def describe(self, o: Any, device: torch.device) -> Output:
        if not isinstance(o, torch.Tensor):
            return Output(OTHER, value=o)
        for i, m in enumerate(self.metas):
            if o is m:
                return Output(SAME, i)
        source = self.by_storage.get(o.untyped_storage()._cdata, -1)
        where = device if source < 0 else self.devices[source]
        spec = spec_of(tuple(o.size()), tuple(o.stride()), o.storage_offset(), o.dtype, where)
        return Output(ALIAS if source >= 0 else NEW, source, spec)


def _infer(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device) -> Plan:
    stripper = _Stripper()
    meta_args = tuple(map(stripper.strip, args))
    meta_kwargs = {k: stripper.strip(v) for k, v in kwargs.items() if k != "pin_memory"}
    try:
        with torch._C.DisableTorchFunction():
            result = func(*meta_args, **meta_kwargs)
    except NotImplementedError as error:
        raise Unsupported(str(func)) from error
    metas = stripper.metas
    if isinstance(result, (list, tuple)):
        container = type(result) if type(result) in (list, tuple) else tuple
        plan = Plan([stripper.describe(o, device) for o in result], container)
    else:
        plan = Plan([stripper.describe(result, device)], None)
    if device.type == "cuda" and (plan.writes or not plan.views_only):
        costs.price(plan, func, meta_args, meta_kwargs, metas)
        plan.workspace = workspace.workspace_requests(
            func, metas, plan.outputs, _world.current().gpus[device.index].card
        )
    return plan


def forget() -> None:
    """Drop every plan: another card, other workspaces."""
    _plans.clear()


def _device_of(x: torch.Tensor) -> torch.device:
    return x.device
