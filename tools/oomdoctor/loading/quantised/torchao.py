"""torchao runs as it is; only its 4-bit kernels come from a package (mslk) that may be absent: shapes stand in for them.

The packed weight is two values per byte; scale and zero point are one each per group, in the weight's own type.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from oomdoctor.loading import session

_libraries: list[Any] = []
LEVELS = 15


def quantise_rows(weight: Any, group_size: int = 128) -> tuple[Any, Any, Any]:
    """(values as int8, scales, zero points) of a matrix, per group of inputs; what is made on the way is float32."""
    session.current().note(
        "torchao's int4 needs the package mslk, which the interpreter lacks: install it for a real run."
    )
    grouped = weight.reshape(-1, group_size).to(torch.float)
    low = grouped.amin(dim=1, keepdim=True)
    scale = (grouped.amax(dim=1, keepdim=True) - low) / LEVELS
    values = ((grouped - low) / scale).to(torch.int8).reshape(weight.shape)
    by_group = [x.view(weight.shape[0], -1).t().contiguous() for x in (scale, low)]
    return values, by_group[0], by_group[1]


def pack(values: Any) -> Any:
    """Two values per byte."""
    return (values[..., ::2] + values[..., 1::2] * 16).contiguous()


def patch_int4(module: ModuleType) -> None:
    """After ``import torchao.quantization.quantize_.workflows.int4.int4_tensor``."""
    if getattr(module, "int4_row_quantize_zp", None) is not None:
        return
    vars(module).update(int4_row_quantize_zp=quantise_rows, pack_int4=pack)
    _define_products()


def _define_products() -> None:
    """The fused products, by the shape of their results."""
    library = torch.library.Library("mslk", "FRAGMENT")
    _libraries.append(library)
    library.define("bf16i4bf16_rowwise(Tensor X, Tensor WQ, Tensor w_scale_group, Tensor w_zero_group) -> Tensor")

    def product(X: Any, WQ: Any, w_scale_group: Any, w_zero_group: Any) -> Any:
        return X.new_empty((*X.shape[:-1], WQ.shape[0]))

    library.impl("bf16i4bf16_rowwise", product, "Meta")


PATCHES = {
    "torchao.quantization.quantize_.workflows.int4.int4_tensor": patch_int4,
}
"""Module -> what to do after it is imported."""
