"""The ways a model is loaded: three types, and every quantiser. The same code runs really and on the virtual card.

Really is on the CPU: bitsandbytes has kernels for it, and :func:`on_cpu` takes away what asks for a card before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Form:
    """A way of loading."""

    load: Callable[[Any, Path], Any]
    """(class, folder) -> the model."""
    fits: Callable[[Any], bool] = lambda cls: True
    """Whether models of a class can be loaded so."""


def library(cls: Any) -> str:
    """``transformers`` or ``diffusers``: whose loader and quantisers the class has."""
    import transformers

    return "transformers" if issubclass(cls, transformers.PreTrainedModel) else "diffusers"


def plain(dtype: str) -> Form:
    return Form(lambda cls, folder: cls.from_pretrained(folder, torch_dtype=getattr(torch, dtype)))


_placing: dict[str, Any] = {}


def on_cpu() -> None:
    """For real loads: bitsandbytes quantises on the CPU, and torchao's int4 has the two functions it wants of mslk."""
    from diffusers.quantizers.bitsandbytes import bnb_quantizer

    # By its name: an attribute of the package shadows the module.
    int4 = importlib.import_module("torchao.quantization.quantize_.workflows.int4.int4_tensor")
    for quantiser in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        quantiser.validate_environment = lambda self, *args, **options: None
    _placing["device_map"] = "cpu"
    if int4.int4_row_quantize_zp is None:
        vars(int4).update(int4_row_quantize_zp=int4_rows, pack_int4=int4_packed)


def int4_rows(weight: Any, group_size: int) -> tuple[Any, Any, Any]:
    """(values 0..15 as int8, scales, zero points), per row and group, groups first: the layout that torchao documents."""
    grouped = weight.float().reshape(weight.shape[0], -1, group_size)
    low = grouped.amin(dim=2, keepdim=True)
    scale = ((grouped.amax(dim=2, keepdim=True) - low) / 15).clamp(min=1e-8)
    values = ((grouped - low) / scale).round().to(torch.int8).reshape(weight.shape)
    return values, scale.squeeze(2).t().contiguous(), low.squeeze(2).t().contiguous()


def int4_packed(values: Any) -> Any:
    """Two values per byte."""
    return (values[:, ::2] | values[:, 1::2] << 4).contiguous()


def quantised(dtype: str, config: Callable[[Any], Any], placed: bool = False) -> Form:
    """``config``: the library's module -> its quantization config; ``placed``: the quantiser wants a card by default."""

    def load(cls: Any, folder: Path) -> Any:
        given = config(importlib.import_module(library(cls)))
        options = _placing if placed else {}
        return cls.from_pretrained(folder, torch_dtype=getattr(torch, dtype), quantization_config=given, **options)

    return Form(load)


def gguf_file(dtype: str) -> Form:
    """``model.gguf`` of the folder, by ``from_single_file``."""

    def load(cls: Any, folder: Path) -> Any:
        import diffusers

        given = diffusers.GGUFQuantizationConfig(compute_dtype=getattr(torch, dtype))
        return cls.from_single_file(
            str(folder / "model.gguf"), config=str(folder), quantization_config=given, torch_dtype=getattr(torch, dtype)
        )

    return Form(load, loads_single_files)


def loads_single_files(cls: Any) -> bool:
    """Whether diffusers has a reader of single files for the class."""
    from diffusers.loaders import single_file_model

    found = hasattr(cls, "from_single_file") and single_file_model._get_single_file_loadable_mapping_class(cls)
    return found is not None and found is not False and "Autoencoder" not in cls.__name__


def bnb8(dtype: str) -> Form:
    return quantised(dtype, lambda lib: lib.BitsAndBytesConfig(load_in_8bit=True), placed=True)


def bnb4(dtype: str, kind: str = "nf4", double: bool = False) -> Form:
    return quantised(
        dtype,
        lambda lib: lib.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        placed=True,
    )  # fmt: skip


def torchao(kind: str, **options: Any) -> Form:
    def config(lib: Any) -> Any:
        import torchao.quantization as ao

        return lib.TorchAoConfig(getattr(ao, kind)(**options))

    return quantised("bfloat16", config)


FORMS: dict[str, Form] = {
    **{dtype: plain(dtype) for dtype in DTYPES},
    **{f"bnb-int8-{dtype}": bnb8(dtype) for dtype in DTYPES},
    **{f"bnb-nf4-{dtype}": bnb4(dtype) for dtype in DTYPES},
    "bnb-nf4-double": bnb4("bfloat16", double=True),
    "bnb-fp4": bnb4("bfloat16", kind="fp4"),
    "torchao-int8": torchao("Int8WeightOnlyConfig"),
    "torchao-fp8": torchao("Float8WeightOnlyConfig"),
    "torchao-int4": torchao("Int4WeightOnlyConfig", group_size=4),
    "gguf": gguf_file("bfloat16"),
}
"""Name -> form."""
