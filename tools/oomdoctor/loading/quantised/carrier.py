"""A weight that carries facts about itself (its quantisation), where the libraries use a parameter subclass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from oomdoctor.vgpu.tensor import VirtualTensor


class Carrier(VirtualTensor):
    """A virtual tensor with attributes that survive ``detach`` and so may be made a parameter; ``data`` is plain."""

    kind = ""
    """Which parameter class of which library it stands for."""

    @classmethod
    def of(cls, tensor: Any, **facts: Any) -> Any:
        """``tensor`` (virtual or plain) as one of this class, on the same memory if it is virtual."""
        out = tensor.detach() if isinstance(tensor, VirtualTensor) else VirtualTensor(tensor)
        if isinstance(out, Carrier):
            out = out.data
        out.__class__ = cls
        out.__dict__.update(facts)
        return out

    def facts(self) -> dict[str, Any]:
        """The attributes that describe the quantisation."""
        raise NotImplementedError

    def extras(self) -> Iterator[Any]:
        """The tensors that belong to the weight beside its elements: scales, and what they are packed with."""
        for fact in self.facts().values():
            if isinstance(fact, torch.Tensor):
                yield fact
            elif hasattr(fact, "absmax"):
                yield from (t for t in vars(fact).values() if isinstance(t, torch.Tensor))

    def detach(self) -> Any:
        return type(self).of(VirtualTensor.detach(self), **self.facts())

    @property
    def data(self) -> Any:
        return VirtualTensor.detach(self)

    @data.setter
    def data(self, new: Any) -> None:
        put: Any = VirtualTensor.data
        put.fset(self, new)

    def moved(self, *args: Any, **options: Any) -> Any:
        """``to`` of the bare data, as one of this class with the same facts; itself when nothing changes."""
        before = self.data
        after = before.to(*args, **options)
        if after is before:
            return self
        return as_parameter(type(self).of(after, **self.facts()))

    def to(self, *args: Any, **options: Any) -> Any:
        return self.moved(*args, **options)

    def cuda(self, device: Any = None, non_blocking: bool = False) -> Any:
        return self.to("cuda" if device is None else device, non_blocking=non_blocking)

    def cpu(self) -> Any:
        return self.to("cpu")

    def contiguous(self, *args: Any, **options: Any) -> Any:
        return self

    def clone(self, *args: Any, **options: Any) -> Any:
        return as_parameter(type(self).of(self.data.clone(), **self.facts()))


def as_parameter(tensor: Any) -> Any:
    """``tensor`` marked as a frozen parameter."""
    tensor._is_param = True
    return tensor


class ParameterKind(type(torch.nn.Parameter)):  # type: ignore[misc]
    """Metaclass of stand-in parameter classes: a carrier of the same ``kind`` counts as an instance."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return getattr(type(instance), "kind", "") == cls.kind or type.__instancecheck__(cls, instance)


def placed(args: Any, options: Any) -> tuple[torch.device | None, torch.dtype | None]:
    """(device, dtype) of the arguments of a ``to``."""
    device, dtype = options.get("device"), options.get("dtype")
    for value in args:
        if isinstance(value, torch.Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif not isinstance(value, bool) and isinstance(value, (str, int, torch.device)):
            device = value
    if isinstance(device, int):
        device = torch.device("cuda", device)
    return (torch.device(device) if device is not None else None), dtype
