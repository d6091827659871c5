"""A stand-in for the ``bitsandbytes`` package: 4-bit and 8-bit linear layers by their storage and buffers.

What takes memory, as the library does it: a 4-bit weight is two per byte plus one float32 scale per 64 weights (or, with
double quantisation, one byte per 64 and one float32 per 256 of those); using it makes the whole weight in its original
type for the time of the product, unless the input is a single row. An 8-bit weight has one float32 scale per row; using
it makes int8 inputs and an int32 product.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
from types import ModuleType
from typing import Any

import torch
from torch import nn

from oomdoctor.loading import session
from oomdoctor.loading.quantised.carrier import Carrier, ParameterKind, as_parameter, placed
from oomdoctor.loading.quantised.present import is_installed
from oomdoctor.vgpu import costs, world
from oomdoctor.vgpu.tensor import VirtualTensor

VERSION = "0.48.0"
"""What the stand-in says it is when the package is not installed: a version that all supported loaders accept."""
BLOCK, NESTED_BLOCK = 64, 256
INT8_COST = 2.0
"""An 8-bit product over one in half precision: outliers are taken apart and multiplied by themselves. From the published
time of FLUX.1-dev on an H100 (27 s for 50 steps, 12 s in bfloat16)."""


class QuantState:
    """The scales of a 4-bit weight."""

    def __init__(self, shape: Any, dtype: torch.dtype, device: Any, nested: bool, quant_type: str) -> None:
        blocks = math.ceil(math.prod(shape) / BLOCK)
        self.shape, self.dtype, self.nested, self.quant_type, self.blocksize = shape, dtype, nested, quant_type, BLOCK
        self.code = torch.empty(16, dtype=torch.float32, device=device)
        self.absmax = torch.empty(blocks, dtype=torch.uint8 if nested else torch.float32, device=device)
        self.offset = torch.empty((), dtype=torch.float32, device=device) if nested else None
        groups = math.ceil(blocks / NESTED_BLOCK)
        self.nested_absmax = torch.empty(groups, dtype=torch.float32, device=device) if nested else None
        self.nested_code = torch.empty(256, dtype=torch.float32, device=device) if nested else None

    def to(self, device: Any) -> None:
        """Move every tensor, in place."""
        for name in ("code", "absmax", "offset", "nested_absmax", "nested_code"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value.to(device))

    def as_dict(self, packed: bool = False) -> dict[str, Any]:
        found = {"absmax": self.absmax, "quant_map": self.code, "nested_absmax": self.nested_absmax}
        return {k: v for k, v in found.items() if v is not None}


class _Weight4bit(Carrier):
    kind = "Params4bit"
    NAMES = (
        "quant_state", "blocksize", "compress_statistics", "quant_type", "quant_storage", "module", "bnb_quantized",
    )  # fmt: skip

    def __new__(cls, data: Any, **facts: Any) -> Any:
        """Libraries rebuild a parameter by calling its class."""
        return Params4bit(data, **facts)

    def facts(self) -> dict[str, Any]:
        return {name: self.__dict__.get(name) for name in self.NAMES}

    def to(self, *args: Any, **options: Any) -> Any:
        device, _ = placed(args, options)
        if device is not None and device.type != "meta" and not self.bnb_quantized:
            return self._quantize(device)
        if device is not None and self.quant_state is not None:
            self.quant_state.to(device)
        return self.moved(*args, **options)

    def _quantize(self, device: torch.device) -> Any:
        whole = self.data.contiguous().to(device)
        packed, state = quantize_4bit(
            whole, compress_statistics=bool(self.compress_statistics), quant_type=self.quant_type,
            quant_storage=self.quant_storage,
        )  # fmt: skip
        self.data = packed
        self.__dict__.update(quant_state=state, bnb_quantized=True)
        if self.module is not None:
            self.module.quant_state = state
        return self


class Params4bit(nn.Parameter, metaclass=ParameterKind):
    """Makes 4-bit weights; on the meta device a plain parameter that remembers how it will be quantised."""

    kind = "Params4bit"

    def __new__(
        cls,
        data: Any = None,
        requires_grad: bool = False,
        quant_state: Any = None,
        blocksize: int | None = None,
        compress_statistics: bool = True,
        quant_type: str = "fp4",
        quant_storage: torch.dtype = torch.uint8,
        module: Any = None,
        bnb_quantized: bool = False,
        **options: Any,
    ) -> Any:
        facts = {
            "quant_state": quant_state, "blocksize": blocksize or BLOCK, "compress_statistics": compress_statistics,
            "quant_type": quant_type, "quant_storage": quant_storage, "module": module, "bnb_quantized": bnb_quantized,
        }  # fmt: skip
        data = torch.empty(0) if data is None else data
        if isinstance(data, VirtualTensor) or data.device.type != "meta":
            return as_parameter(_Weight4bit.of(data, **facts))
        made = torch.Tensor._make_subclass(cls, data, requires_grad)
        made.__dict__.update(facts)
        return made

    @classmethod
    def from_prequantized(
        cls,
        data: Any,
        quantized_stats: Any,
        requires_grad: bool = False,
        device: Any = "cuda",
        module: Any = None,
        **options: Any,
    ) -> Any:
        """A weight of a checkpoint that is 4-bit already."""
        nested = any("nested_absmax" in key for key in quantized_stats)
        kind = "fp4" if any("fp4" in key for key in quantized_stats) else "nf4"
        shape = tuple(module.weight.shape) if module is not None else (data.numel() * 2,)
        state = QuantState(shape, torch.bfloat16, device, nested, kind)
        if module is not None:
            module.quant_state = state
        return cls(data.to(device), quant_state=state, quant_type=kind, module=module, bnb_quantized=True)


def quantize_4bit(
    A: Any,
    absmax: Any = None,
    out: Any = None,
    blocksize: int | None = None,
    compress_statistics: bool = False,
    quant_type: str = "fp4",
    quant_storage: torch.dtype = torch.uint8,
    **options: Any,
) -> tuple[Any, QuantState]:
    """(packed weight, its scales), on the device of ``A``."""
    _note_missing()
    packed = torch.empty(((A.numel() + 1) // (quant_storage.itemsize * 2), 1), dtype=quant_storage, device=A.device)
    return packed, QuantState(tuple(A.shape), A.dtype, A.device, compress_statistics, quant_type)


def dequantize_4bit(A: Any, quant_state: Any = None, *args: Any, **options: Any) -> Any:
    """The whole weight in its original type."""
    if quant_state.nested:
        scales = torch.empty(quant_state.absmax.shape, dtype=torch.float32, device=A.device)
        scales.fill_(0)
    whole = torch.empty(tuple(quant_state.shape), dtype=quant_state.dtype, device=A.device)
    return whole.fill_(0)


def matmul_4bit(A: Any, B: Any, quant_state: Any = None, out: Any = None, bias: Any = None) -> Any:
    """``A`` times a 4-bit weight."""
    single = A.numel() == A.shape[-1] and not A.requires_grad
    if single and A.shape[-1] % quant_state.blocksize == 0:
        product = torch.empty((*A.shape[:-1], quant_state.shape[0]), dtype=A.dtype, device=A.device).fill_(0)
        return product if bias is None else product + bias
    return nn.functional.linear(A, dequantize_4bit(B, quant_state).to(A.dtype), bias)


class Linear4bit(nn.Linear):
    """A linear layer whose weight is 4-bit once it is on a device."""

    def __init__(
        self,
        input_features: int,
        output_features: int,
        bias: bool = True,
        compute_dtype: Any = None,
        compress_statistics: bool = True,
        quant_type: str = "fp4",
        quant_storage: torch.dtype = torch.uint8,
        device: Any = None,
    ) -> None:
        super().__init__(input_features, output_features, bias, device)
        weight: Any = self._parameters["weight"]
        self.weight: Any = Params4bit(
            weight.data, compress_statistics=compress_statistics, quant_type=quant_type,
            quant_storage=quant_storage, module=self,
        )  # fmt: skip
        self.compute_dtype = compute_dtype
        self.quant_state: Any = None
        self.quant_storage = quant_storage

    def forward(self, x: Any) -> Any:
        kind = x.dtype
        state = getattr(self.weight, "quant_state", None) or self.quant_state
        if self.compute_dtype is None and x.dtype in (torch.float32, torch.bfloat16):
            self.compute_dtype = x.dtype
        if self.compute_dtype is not None:
            x = x.to(self.compute_dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return matmul_4bit(x, self.weight, quant_state=state, bias=bias).to(kind)


class LinearNF4(Linear4bit):
    """A 4-bit layer in the NF4 type."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "quant_type": "nf4"})


class LinearFP4(Linear4bit):
    """A 4-bit layer in the FP4 type."""


class _Weight8bit(Carrier):
    kind = "Int8Params"

    def __new__(cls, data: Any, **facts: Any) -> Any:
        """Libraries rebuild a parameter by calling its class."""
        return Int8Params(data, **facts)

    def facts(self) -> dict[str, Any]:
        return {name: self.__dict__.get(name) for name in ("CB", "SCB", "has_fp16_weights")}

    def to(self, *args: Any, **options: Any) -> Any:
        device, _ = placed(args, options)
        quantised = self.dtype == torch.int8
        if not quantised and not self.has_fp16_weights and device is not None and device.type != "meta":
            half = self.data.contiguous().to(device=device, dtype=torch.float16)
            _note_missing()
            self.data = torch.empty(tuple(half.shape), dtype=torch.int8, device=device)
            self.__dict__.update(SCB=torch.empty(half.shape[0], dtype=torch.float32, device=device))
            return self
        if device is not None and self.SCB is not None:
            self.__dict__.update(SCB=self.SCB.to(device))
        return self.moved(*args, **options)


class Int8Params(nn.Parameter, metaclass=ParameterKind):
    """Makes 8-bit weights; on the meta device a plain parameter."""

    kind = "Int8Params"

    def __new__(
        cls,
        data: Any = None,
        requires_grad: bool = True,
        has_fp16_weights: bool = False,
        CB: Any = None,
        SCB: Any = None,
        **options: Any,
    ) -> Any:
        facts = {"CB": CB, "SCB": SCB, "has_fp16_weights": has_fp16_weights}
        data = torch.empty(0) if data is None else data
        if isinstance(data, VirtualTensor) or data.device.type != "meta":
            return as_parameter(_Weight8bit.of(data, **facts))
        made = torch.Tensor._make_subclass(cls, data, requires_grad and data.is_floating_point())
        made.__dict__.update(facts)
        return made


class MatmulLtState:
    """What an 8-bit layer keeps between calls."""

    def __init__(self) -> None:
        self.threshold = 0.0
        self.has_fp16_weights = True
        self.CB: Any = None
        self.SCB: Any = None
        self.use_pool = False
        self.is_training = False


class Linear8bitLt(nn.Linear):
    """A linear layer whose weight is 8-bit once it is on a device."""

    def __init__(
        self,
        input_features: int,
        output_features: int,
        bias: bool = True,
        has_fp16_weights: bool = True,
        threshold: float = 0.0,
        index: Any = None,
        device: Any = None,
    ) -> None:
        super().__init__(input_features, output_features, bias, device)
        self.state = MatmulLtState()
        self.state.threshold, self.state.has_fp16_weights, self.index = threshold, has_fp16_weights, index
        weight: Any = self._parameters["weight"]
        self.weight: Any = Int8Params(weight.data, has_fp16_weights=has_fp16_weights, requires_grad=has_fp16_weights)

    def forward(self, x: Any) -> Any:
        if self.weight.dtype != torch.int8:
            return nn.functional.linear(x, self.weight.to(x.dtype), self.bias)
        half = x.to(torch.float16)
        rows = half.numel() // half.shape[-1]
        small = torch.empty((rows, half.shape[-1]), dtype=torch.int8, device=x.device).fill_(0)
        product = torch.empty((rows, self.out_features), dtype=torch.int32, device=x.device).fill_(0)
        _multiplying(x, 2.0 * INT8_COST * rows * half.shape[-1] * self.out_features)
        out = product.to(torch.float16).view(*x.shape[:-1], self.out_features)
        del small
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return out.to(x.dtype)


def _multiplying(x: Any, flops: float) -> None:
    """The card is busy for so many operations in half precision."""
    if isinstance(x, VirtualTensor) and x.device.type == "cuda":
        gpu = world.current().gpus[x.device.index]
        gpu.clock.launch(gpu.stream, costs.seconds(gpu.card, flops, torch.float16, 0))


def int8_vectorwise_dequant(A: Any, stats: Any) -> Any:
    """An 8-bit weight as float32."""
    return torch.empty(tuple(A.shape), dtype=torch.float32, device=A.device).fill_(0)


_missing: list[bool] = []


def _note_missing() -> None:
    if _missing and _missing[0]:
        session.current().note("bitsandbytes is not installed in this interpreter: install it for a real run.")


def fill(module: ModuleType) -> None:
    """Make ``module`` the stand-in for ``bitsandbytes``."""
    installed = is_installed("bitsandbytes")
    _missing[:] = [not installed]
    module.__dict__.update(
        __version__=importlib.metadata.version("bitsandbytes") if installed else VERSION,
        MatmulLtState=MatmulLtState,
        matmul_4bit=matmul_4bit,
        supported_torch_devices={"cuda", "cpu"},
        features={"multi_backend"},
    )
    # As with the real package, its parts are there after `import bitsandbytes`.
    for part in ("nn", "nn.modules", "functional"):
        importlib.import_module(f"bitsandbytes.{part}")


def fill_nn(module: ModuleType) -> None:
    """Make ``module`` the stand-in for ``bitsandbytes.nn`` (and for ``.nn.modules``)."""
    for cls in (Linear4bit, LinearNF4, LinearFP4, Linear8bitLt, Params4bit, Int8Params):
        setattr(module, cls.__name__, cls)


def fill_functional(module: ModuleType) -> None:
    """Make ``module`` the stand-in for ``bitsandbytes.functional``."""
    for item in (QuantState, quantize_4bit, dequantize_4bit, int8_vectorwise_dequant):
        setattr(module, item.__name__, item)


MODULES = {
    "bitsandbytes": fill,
    "bitsandbytes.nn": fill_nn,
    "bitsandbytes.nn.modules": fill_nn,
    "bitsandbytes.functional": fill_functional,
}
"""Module name -> what fills it, parents first."""
