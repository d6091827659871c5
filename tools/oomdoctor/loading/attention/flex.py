"""``torch.nn.attention.flex_attention``: compiled it is one fused kernel, uncompiled it makes all scores.

The uncompiled form follows torch's own (``_higher_order_ops/flex_attention.py``): scores in fp32, scaled, changed by the
script's function, masked, then the softmax. The script's function is called once with the whole scores.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch

from oomdoctor.loading import hooks
from oomdoctor.vgpu.attention_choice import EFFICIENT
from oomdoctor.vgpu.rules.attention import attend


def eager(
    query: Any, key: Any, value: Any, score_mod: Any = None, block_mask: Any = None, scale: Any = None,
    enable_gqa: bool = False, return_lse: bool = False, kernel_options: Any = None, *, return_aux: Any = None,
) -> Any:  # fmt: skip
    """Shapes (batch, heads, tokens, head size)."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    scores = query.to(wide) @ key.to(wide).transpose(-2, -1)
    scores = scores * (scale or 1 / math.sqrt(query.shape[-1]))
    # The function may read positions; sizes do not depend on them, so any will do.
    changed = scores if score_mod is None else scores + 0.0
    batch = query.shape[0] if block_mask is not None else 1
    heads = query.shape[1] if block_mask is not None else 1
    allowed = torch.ones((batch, heads, *scores.shape[-2:]), dtype=torch.bool, device=query.device)
    masked = torch.where(allowed, changed, torch.tensor(-math.inf, dtype=wide, device=query.device))
    lse = masked.logsumexp(dim=-1)
    empty = torch.all(masked == -math.inf, dim=-1)
    masked = torch.softmax(masked, dim=-1)
    out = masked.to(query.dtype) @ value
    del allowed, empty, changed, scores
    return (out, lse) if return_lse or return_aux is not None else out


def fused(
    query: Any, key: Any, value: Any, score_mod: Any = None, block_mask: Any = None, scale: Any = None,
    enable_gqa: bool = False, return_lse: bool = False, kernel_options: Any = None, *, return_aux: Any = None,
) -> Any:  # fmt: skip
    """The compiled kernel: the output and one fp32 number per query and head."""
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    lse = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
    out = attend(EFFICIENT, query, key, value)
    return (out, lse) if return_lse or return_aux is not None else out


def patch(module: ModuleType) -> None:
    """After ``import torch.nn.attention.flex_attention``. Tensors of the CPU go the real way."""
    original = module.flex_attention

    def flex_attention(query: Any, *args: Any, **options: Any) -> Any:
        return (eager if query.is_cuda else original)(query, *args, **options)

    flex_attention.__compiled__ = fused  # type: ignore[attr-defined]
    hooks.replace(module, "flex_attention", flex_attention)
