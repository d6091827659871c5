"""``torch.autocast("cuda")`` for virtual tensors, whose C++ face is not a CUDA one and so is passed over by torch's own.

Applied where operators arrive, after the composites (``linear``, ``einsum``) have been taken apart. The lists are those
of torch's autocast documentation ("CUDA Ops that can autocast to float16" and "... to float32"), by operator. Copies of
float32 weights are kept until the outermost block ends, as torch keeps them: that is memory too.
"""

from __future__ import annotations

import threading
from typing import Any

import torch

from oomdoctor.vgpu.cuda_api import Patches
from oomdoctor.vgpu.tensor import VirtualTensor

aten = torch.ops.aten

_LOWER = {
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.addbmm.default,
    aten.mv.default, aten.addmv.default, aten.addr.default, aten.convolution.default,
    aten._convolution.default, aten.linear.default, aten.matmul.default, aten._prelu_kernel.default,
}  # fmt: skip
_FLOAT32 = {
    aten._softmax.default, aten._log_softmax.default, aten.native_layer_norm.default, aten.native_group_norm.default,
    aten._fused_rms_norm.default if hasattr(aten, "_fused_rms_norm") else aten.native_layer_norm.default,
    aten.cumsum.default, aten.cumprod.default, aten.prod.default, aten.prod.dim_int, aten.sum.default,
    aten.sum.dim_IntList, aten.exp.default, aten.expm1.default, aten.log.default, aten.log2.default,
    aten.log10.default, aten.log1p.default, aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar,
    aten.reciprocal.default, aten.rsqrt.default, aten.acos.default, aten.asin.default, aten.cosh.default,
    aten.sinh.default, aten.tan.default, aten.erfinv.default, aten.softplus.default, aten.mse_loss.default,
    aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim, aten._cdist_forward.default, aten.renorm.default,
}  # fmt: skip
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


class _State(threading.local):
    enabled = False


state = _State()
"""Whether this thread is inside a block for CUDA. Kept by us: where operators arrive, torch has the key masked out."""

_kept: dict[tuple[Any, ...], tuple[VirtualTensor, VirtualTensor]] = {}
"""(storage, layout, dtype) of a float32 weight -> the weight's tensor and its copy."""


def patch_autocast(patches: Patches) -> None:
    """Follow blocks as they open and close; drop the copies when torch drops its own."""
    original_clear, original_set = torch.clear_autocast_cache, torch.set_autocast_enabled

    def clear_autocast_cache() -> None:
        _kept.clear()
        original_clear()

    def set_autocast_enabled(device_type: Any, *enabled: bool) -> None:
        original_set(device_type, *enabled)
        if device_type == "cuda" or not enabled:  # the old form, without a device, is about CUDA
            state.enabled = torch.is_autocast_enabled("cuda")

    patches.set(torch, "clear_autocast_cache", clear_autocast_cache)
    patches.set(torch, "set_autocast_enabled", set_autocast_enabled)


def cast_for(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of an operator as autocast hands them on. Call only while autocast is enabled for CUDA."""
    if func in _LOWER:
        target = torch.get_autocast_dtype("cuda")
    elif func in _FLOAT32:
        target = torch.float32
    else:
        return args
    return tuple(_cast(a, target) for a in args)


def cast_tensor(x: Any, target: torch.dtype) -> Any:
    """One argument of an operator of the lower-precision list (attention asks for its three)."""
    return _cast(x, target)


def _cast(x: Any, target: torch.dtype) -> Any:
    if not isinstance(x, VirtualTensor):
        return x
    spec = x._spec
    if spec.dtype is target or spec.dtype not in _FLOATS or spec.device.type != "cuda":
        return x
    if spec.dtype is torch.float32 and x._storage_handle.weights_of and torch.is_autocast_cache_enabled():
        key = (id(x._storage_handle), spec, target)
        found = _kept.get(key)
        if found is None:
            found = _kept[key] = (x, aten._to_copy.default(x, dtype=target))
        return found[1]
    return aten._to_copy.default(x, dtype=target)
