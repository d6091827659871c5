"""xFormers: ``memory_efficient_attention``, which takes FlashAttention where that can run and CUTLASS elsewhere.

Shapes (batch, tokens, heads, head size), or (batch, tokens, head size) for one head. The choice follows the package's
dispatcher (0.0.29 and later): flash for half precision on compute capability 8.0 and up, head sizes up to 256 and no bias
but the causal one; the CUTLASS kernel has the buffers of torch's memory-efficient one, which comes from it.
"""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Any

import torch

from oomdoctor.loading.attention.package import Package, refuse
from oomdoctor.vgpu.attention_choice import EFFICIENT, FLASH, HALF
from oomdoctor.vgpu.rules.attention import attend


class AttentionBias:
    """Base of the biases that are no tensors."""


class LowerTriangularMask(AttentionBias):
    """Causal attention."""

    def __init__(self, *shape: Any, **options: Any) -> None:
        pass


class AttentionOpBase:
    """What ``op=`` names."""


class MemoryEfficientAttentionFlashAttentionOp(AttentionOpBase):
    """FlashAttention forward and backward."""


class MemoryEfficientAttentionCutlassOp(AttentionOpBase):
    """CUTLASS forward and backward."""


def memory_efficient_attention(
    query: Any, key: Any, value: Any, attn_bias: Any = None, p: float = 0.0, scale: Any = None, *, op: Any = None,
    output_dtype: Any = None,
) -> Any:  # fmt: skip
    """Raises NotImplementedError where no kernel takes the inputs, in the package's words."""
    shape = query.shape
    if query.dim() == 3:
        query, key, value = (t.unsqueeze(2) for t in (query, key, value))
    elif query.dim() == 5:
        query, key, value = (t.flatten(2, 3) for t in (query, key, value))
    capability = torch.cuda.get_device_capability(query.device) if query.is_cuda else (0, 0)
    fits = capability >= (5, 0) and query.dtype in (*HALF, torch.float32)
    if not fits or (query.dtype == torch.bfloat16 and capability < (8, 0)):
        raise NotImplementedError(
            f"No operator found for `memory_efficient_attention_forward` with inputs:\n     query : "
            f"shape={tuple(query.shape)} ({query.dtype})\n     compute capability {capability[0]}.{capability[1]}"
        )
    bias = attn_bias if isinstance(attn_bias, torch.Tensor) else None
    if bias is not None and bias.dim() == 3:
        bias = bias.unsqueeze(1)
    flash = capability >= (8, 0) and query.dtype in HALF and bias is None and query.shape[-1] <= 256
    flash = flash and op is not MemoryEfficientAttentionCutlassOp
    causal = isinstance(attn_bias, AttentionBias)
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    out = attend(FLASH if flash else EFFICIENT, q, k, v, bias, causal).transpose(1, 2)
    out = out.reshape((*shape[:-1], value.shape[-1]))
    return out if output_dtype is None else out.to(output_dtype)


def _fill(module: ModuleType) -> None:
    module.__version__ = PACKAGE.version  # type: ignore[attr-defined]


def _fill_ops(module: ModuleType) -> None:
    made = (
        memory_efficient_attention, AttentionBias, LowerTriangularMask, AttentionOpBase,
        MemoryEfficientAttentionFlashAttentionOp, MemoryEfficientAttentionCutlassOp,
    )  # fmt: skip
    vars(module).update({m.__name__: m for m in made}, __getattr__=refuse("xformers.ops"))
    sys.modules["xformers"].ops = module  # type: ignore[attr-defined]


PACKAGE = Package(
    "xformers",
    "0.0.35",
    {"xformers": _fill, "xformers.ops": _fill_ops},
    re.compile(r"(?:enable|import|from)[ _]xformers|['\"]xformers['\"]|\bxformers\.|\.XFORMERS\b"),
    "xformers",
    "_CAN_USE_XFORMERS_ATTN",
    {
        "xops": "xformers.ops",
        "diffusers.models.attention:xops": "xformers",
        "diffusers.models.attention_processor:xformers": "xformers",
    },
)
