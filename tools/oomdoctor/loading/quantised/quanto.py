"""A stand-in for ``optimum.quanto``: layers by their storage and by the buffers that using them takes.

What takes memory, as the library (0.2.7) does it: an 8-bit weight has one byte per element and one scale per output row
in the layer's own type; 4 and 2 bits are packed into bytes, with a scale and a shift per group of 128 inputs (or of the
next smaller multiple of 32 that divides them, or one per row). A product with 8-bit weights first makes the whole weight
in the layer's type, and for float8 one more copy of it; bfloat16 layers of 4 bits use a fused kernel; the rest unpacks.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from oomdoctor.loading import session
from oomdoctor.loading.quantised.carrier import Carrier, ParameterKind, as_parameter, placed
from oomdoctor.loading.quantised.present import is_installed
from oomdoctor.vgpu.tensor import VirtualTensor
from oomdoctor.vgpu.world import normal_device

VERSION = "0.2.7"
GROUP, SMALLEST_GROUP = 128, 32


@dataclass(frozen=True)
class qtype:
    """A storage type of the library."""

    name: str
    is_floating_point: bool
    bits: int
    dtype: torch.dtype
    qmin: float
    qmax: float

    def __str__(self) -> str:
        return f"quanto.{self.name}"


def _integer(bits: int) -> qtype:
    return qtype(f"qint{bits}", False, bits, torch.int8, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _floating(dtype: torch.dtype) -> qtype:
    limits = torch.finfo(dtype)
    return qtype(f"q{limits.dtype}", True, 8, dtype, limits.min, limits.max)


qint2, qint4, qint8 = _integer(2), _integer(4), _integer(8)
qfloat8_e4m3fn, qfloat8_e5m2 = _floating(torch.float8_e4m3fn), _floating(torch.float8_e5m2)
qfloat8 = qfloat8_e4m3fn
QTYPES = {q.name: q for q in (qint2, qint4, qint8, qfloat8_e4m3fn, qfloat8_e5m2)}


class _Weight(Carrier):
    """The packed elements; scale, shift and what the weight was lie beside them."""

    kind = "QTensor"
    NAMES = ("_scale", "_shift", "qtype", "full_shape", "_is_hf_initialized")

    def __new__(cls, data: Any, **facts: Any) -> Any:
        """Libraries rebuild a parameter by calling its class."""
        return as_parameter(cls.of(data, **facts))

    def facts(self) -> dict[str, Any]:
        return {name: self.__dict__.get(name) for name in self.NAMES}

    @property
    def data(self) -> Any:
        return VirtualTensor.detach(self)

    @data.setter
    def data(self, new: Any) -> None:
        """``Module.to`` puts the moved weight in by its data: the scales come along."""
        put: Any = VirtualTensor.data
        put.fset(self, new)
        if isinstance(new, _Weight):
            self.__dict__.update(new.facts())

    def moved(self, *args: Any, **options: Any) -> Any:
        """To another device: the elements, the scale and the shift; the type of the elements stays."""
        device, _ = placed(args, options)
        if device is None or normal_device(device) == self.device:
            return self
        after = type(self).of(self.data.to(device), **self.facts())
        after.__dict__.update(
            _scale=self._scale.to(device), _shift=None if self._shift is None else self._shift.to(device)
        )
        return as_parameter(after)


class QTensor(nn.Parameter, metaclass=ParameterKind):
    """What ``isinstance`` finds a quantised weight to be."""

    kind = "QTensor"


class PackedTensor:
    """Only files that are quantised already hold one."""


class QModuleMixin:
    """Marks quantised layers."""

    frozen: bool


def group_size(in_features: int) -> int | None:
    """Inputs that share a scale below 8 bits; None: the whole row."""
    size = GROUP
    if in_features <= size:
        return None
    while in_features % size and size > SMALLEST_GROUP:
        size -= SMALLEST_GROUP
    return size if in_features % size == 0 else None


def quantised(weight: Any, kind: qtype) -> Any:
    """``weight`` in the storage type, with its scales, made as the library makes it."""
    _note_missing()
    if kind.bits == 8:
        scale = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True) / kind.qmax
        data = torch.clamp(weight / scale, kind.qmin, kind.qmax).to(kind.dtype)
        shift = None
    else:
        inputs = weight.numel() // weight.shape[0]
        grouped = weight.reshape(-1, group_size(inputs) or inputs)
        low, high = grouped.amin(dim=1, keepdim=True), grouped.amax(dim=1, keepdim=True)
        scale, shift = (high - low) / (2**kind.bits - 1), -low
        whole = torch.clamp((grouped + shift) / scale, 0, 2**kind.bits - 1).to(torch.uint8)
        packed = 8 // kind.bits
        data = torch.empty((-(-weight.numel() // packed),), dtype=torch.uint8, device=weight.device)
        del whole
    return as_parameter(
        _Weight.of(
            data, _scale=scale, _shift=shift, qtype=kind, full_shape=tuple(weight.shape), _is_hf_initialized=True
        )
    )


def whole(weight: Any) -> Any:
    """A quantised weight in the type of its scale, and the copies that are made on the way."""
    kind, scale = weight.qtype, weight._scale
    data = weight.data
    if kind.bits == 8:
        if kind.is_floating_point:
            data = data.to(scale.dtype)
        return scale * data
    unpacked = torch.empty(
        (scale.numel(), -(-_numel(weight.full_shape) // scale.numel())), dtype=torch.uint8, device=data.device
    )
    return ((unpacked - weight._shift) * scale).reshape(weight.full_shape)


def _numel(shape: tuple[int, ...]) -> int:
    out = 1
    for size in shape:
        out *= size
    return out


class QLinear(QModuleMixin, nn.Linear):
    """A linear layer that is quantised when it is frozen."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        weights: Any = None,
        activations: Any = None,
        optimizer: Any = None,
        quantize_input: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.weight: Any
        self.weight_qtype = QTYPES[weights] if isinstance(weights, str) else weights
        self.activation_qtype = activations
        for name in ("input_scale", "output_scale"):
            self.register_buffer(name, torch.ones((), dtype=self.weight.dtype, device=device))

    @property
    def frozen(self) -> bool:  # type: ignore[override]
        return isinstance(self.weight, QTensor)

    def freeze(self) -> None:
        """Replace the weight by its quantised form."""
        if self.weight_qtype is not None and not self.frozen:
            self.weight = quantised(self.weight.detach(), self.weight_qtype)

    def forward(self, input: Any) -> Any:
        weight: Any = self.weight
        if not self.frozen:
            return nn.functional.linear(input, weight, self.bias)
        if weight.qtype is qint4 and weight._scale.dtype == torch.bfloat16 and group_size(self.in_features) == GROUP:
            out = torch.empty((*input.shape[:-1], self.out_features), dtype=torch.bfloat16, device=input.device).fill_(
                0
            )
        else:
            out = input.to(weight._scale.dtype).matmul(whole(weight).t())
        return out if self.bias is None else out + self.bias


def quantize(
    model: nn.Module, weights: Any = None, activations: Any = None, optimizer: Any = None, include: Any = None,
    exclude: Any = None,
) -> None:  # fmt: skip
    """Replace the linear layers of ``model`` whose names match; they are quantised when they are frozen."""
    include, exclude = ([p] if isinstance(p, str) else p for p in (include, exclude))
    for name, module in list(model.named_modules()):
        wanted = include is None or any(fnmatch.fnmatch(name, p) for p in include)
        if not wanted or (exclude is not None and any(fnmatch.fnmatch(name, p) for p in exclude)):
            continue
        if type(module) is not nn.Linear or not name:
            continue
        with torch.device("meta"):
            layer = QLinear(
                module.in_features,
                module.out_features,
                module.bias is not None,
                weights=weights,
                dtype=module.weight.dtype,
            )
        layer.weight, layer.bias = module.weight, module.bias
        for buffer in ("input_scale", "output_scale"):
            setattr(layer, buffer, torch.ones((), dtype=module.weight.dtype, device=module.weight.device))
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)


def freeze(model: nn.Module) -> None:
    """Quantise every layer that waits for it."""
    for module in model.modules():
        if isinstance(module, QLinear):
            module.freeze()


def quantization_map(model: nn.Module) -> dict[str, dict[str, str]]:
    """Layer -> its types, as the library saves them."""
    layers = ((n, m) for n, m in model.named_modules() if isinstance(m, QLinear) and m.weight_qtype is not None)
    return {name: {"weights": module.weight_qtype.name, "activations": "none"} for name, module in layers}


class QLayerNorm(nn.LayerNorm):
    """Only activations would be quantised; memory is that of a layer norm."""


_missing: list[bool] = []


def _note_missing() -> None:
    if _missing and _missing[0]:
        session.current().note("optimum-quanto is not installed in this interpreter: install it for a real run.")


def fill(module: ModuleType) -> None:
    """Make ``module`` the stand-in for ``optimum.quanto``."""
    _missing[:] = [not is_installed("optimum-quanto")]
    things = (QLinear, QLayerNorm, QModuleMixin, QTensor, qtype, quantize, freeze, quantization_map)
    module.__dict__.update({thing.__name__: thing for thing in things}, __version__=VERSION)
    module.__dict__.update(QTYPES, qtypes=QTYPES, qfloat8=qfloat8)
    for part in ("tensor", "tensor.packed"):
        importlib.import_module(f"optimum.quanto.{part}")


def fill_tensor(module: ModuleType) -> None:
    """Make ``module`` the stand-in for ``optimum.quanto.tensor`` (and for ``.packed``)."""
    module.__dict__.update(PackedTensor=PackedTensor, QTensor=QTensor)


def provide(put: Callable[[str, Callable[[ModuleType], None]], None]) -> None:
    """Offer the modules through ``put(name, fill)``; the package around them only where there is none."""
    if importlib.util.find_spec("optimum") is None:
        put("optimum", lambda module: None)
    for name, filler in MODULES.items():
        put(name, filler)


MODULES = {
    "optimum.quanto": fill,
    "optimum.quanto.tensor": fill_tensor,
    "optimum.quanto.tensor.packed": fill_tensor,
}
"""Module name -> what fills it, parents first."""
