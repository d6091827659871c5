"""GGUF checkpoints: packed weights by their quantisation type; the dequantisation is diffusers' own code.

A file that is here tells every tensor's type and shape by its header. One that is not tells its type by its name
(``...-Q4_K_S.gguf``): matrices are of the types that :mod:`gguf_mix` says for it, everything else is float32.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from oomdoctor.loading import hooks, session, snapshot, tables
from oomdoctor.loading.quantised import gguf_mix
from oomdoctor.loading.quantised.carrier import Carrier, ParameterKind, as_parameter
from oomdoctor.vgpu.tensor import VirtualTensor

_NAME = re.compile(
    r"(?:^|[-_.])((?:IQ|Q)\d(?:_[K01])?|F16|BF16|F32)(?:[-_.](S|M|L|XS|XXS|NL))?(?=[-_.]|$)", re.IGNORECASE
)
_PLAIN = {"F32": torch.float32, "F16": torch.float16}
"""Types that diffusers reads as tensors; the others stay packed."""
_SMALL = 1 << 15
"""Elements up to which a matrix is left in float32 by the converters."""


class _Packed(Carrier):
    kind = "GGUFParameter"

    def __new__(cls, data: Any, **facts: Any) -> Any:
        """Libraries rebuild a parameter by calling its class."""
        return cls.of(data, **facts)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What converters of other layouts do to weights (split, join, cut) leaves them packed."""
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        if func not in _STAY_PACKED:
            return result
        first = args[0][0] if isinstance(args[0], (list, tuple)) else args[0]
        quant = first.__dict__.get("quant_type")
        return type(result)(packed(part, quant) for part in result) if isinstance(result, (list, tuple)) else (
            packed(result, quant)
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        return {"quant_type": self.__dict__.get("quant_type"), "quant_shape": self.__dict__.get("quant_shape")}

    def as_tensor(self) -> Any:
        """The packed bytes, as diffusers asks for them."""
        return self.data


_STAY_PACKED = frozenset(
    (
        torch.chunk, torch.split, torch.cat, torch.concat, torch.narrow, torch.stack, torch.Tensor.chunk, torch.Tensor.split,
        torch.Tensor.narrow, torch.Tensor.__getitem__,
    )
)  # fmt: skip


def packed(data: Any, quant: Any) -> Any:
    """Bytes as a packed weight of a type of the ``gguf`` package."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[quant]
    shape = (*data.shape[:-1], data.shape[-1] // size * block)
    return as_parameter(_Packed.of(data, quant_type=quant, quant_shape=shape))


def type_of(file: str) -> str:
    """The quantisation type that a file's name states (``Q4_K_M``). Raises MissingModel when it states none."""
    name = os.path.basename(file).removesuffix(".gguf")
    found = _NAME.search(name)
    if found is None:
        raise session.MissingModel(
            f"{file} is not on this machine and its name does not say how it is quantised (as in -Q4_K_S.gguf). Put the "
            "file there: only its header is read."
        )
    return "_".join(part.upper() for part in found.groups() if part)


def of_header(file: str) -> dict[str, Any]:
    """What ``load_gguf_checkpoint`` gives for a file that is here, without reading its weights.

    Raises ValueError for types that diffusers cannot load, in the sense of its own words.
    """
    import gguf
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    plain = {gguf.GGMLQuantizationType.F32: torch.float32, gguf.GGMLQuantizationType.F16: torch.float16}
    make = session.current().tensor
    out: dict[str, Any] = {}
    for tensor in gguf.GGUFReader(file).tensors:
        shape, quant = tuple(int(n) for n in tensor.data.shape), tensor.tensor_type
        if quant in plain:
            out[tensor.name] = make(shape, plain[quant], host="anonymous")
        elif quant in SUPPORTED_GGUF_QUANT_TYPES:
            out[tensor.name] = packed(make(shape, torch.uint8, host="anonymous"), quant)
        else:
            raise ValueError(f"{tensor.name} has a quantization type: {quant} which is unsupported.")
    return out


def read(file: str) -> dict[str, Any]:
    """What ``load_gguf_checkpoint`` gives for a marker: names and packed tensors.

    Raises ValueError for types that diffusers cannot load, in the sense of its own words.
    """
    import gguf
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    marker = snapshot.read_marker(file)
    assert marker is not None
    make = session.current().tensor
    out: dict[str, Any] = {}
    for name, (_, shape) in tables.of_marker(marker).items():
        if len(shape) != 2 or shape[0] * shape[1] <= _SMALL:
            out[name] = make(shape, torch.float32, host="anonymous")
            continue
        chosen = gguf_mix.type_of_weight(marker["quant"], marker["class"], name, shape)
        quant = gguf.GGMLQuantizationType[chosen]
        block, size = gguf.GGML_QUANT_SIZES[quant]
        if chosen not in _PLAIN and quant not in SUPPORTED_GGUF_QUANT_TYPES:
            raise ValueError(f"{name} has a quantization type: {quant} which is unsupported.")
        if chosen in _PLAIN or shape[1] % block:
            out[name] = make(shape, _PLAIN.get(chosen, torch.float32), host="anonymous")
        else:
            out[name] = packed(make((shape[0], shape[1] // block * size), torch.uint8, host="anonymous"), quant)
    return out


def patch_reader(module: ModuleType) -> None:
    """After ``import diffusers.models.model_loading_utils``."""
    original: Callable[..., Any] | None = getattr(module, "load_gguf_checkpoint", None)
    if original is None:
        return

    def load_gguf_checkpoint(gguf_checkpoint_path: Any, *args: Any, **options: Any) -> Any:
        if snapshot.read_marker(gguf_checkpoint_path) is None:
            return of_header(str(gguf_checkpoint_path))
        return read(str(gguf_checkpoint_path))

    hooks.replace(module, "load_gguf_checkpoint", load_gguf_checkpoint)


def _itself(tensor: Any) -> Any:
    return tensor


def patch_parameter(module: ModuleType) -> None:
    """After ``import diffusers.quantizers.gguf.utils``: the parameter class makes and recognises virtual weights."""
    original: Any = module.GGUFParameter
    # Up to diffusers 0.36 unpacked values are packed parameters still, which are asked for what they hold.
    VirtualTensor.as_tensor = _itself

    class GGUFParameter(nn.Parameter, metaclass=ParameterKind):
        """Stands in for diffusers' class of the same name."""

        kind = "GGUFParameter"

        def __new__(cls, data: Any, requires_grad: bool = False, quant_type: Any = None) -> Any:
            if not isinstance(data, VirtualTensor):
                return original(data, requires_grad, quant_type)
            return packed(data, quant_type)

    hooks.replace(module, "GGUFParameter", GGUFParameter)


def marker_content(content: dict[str, Any], link: str) -> dict[str, Any]:
    """The content of a component's marker, as that of a GGUF file."""
    quant = type_of(link)
    session.current().note(
        f"{os.path.basename(link)} is not at hand: its weights are taken to be mixed as the usual converter does for {quant}."
    )
    return {**content, "kind": "component", "quant": quant}
