"""SageAttention 2: queries and keys in 8 bits, values in fp16 or fp8, by the card.

The buffers are those of the package's ``core.py`` and ``quant.py`` (2.2): head sizes padded to 64 or 128; the mean of the
keys; 8-bit copies of queries and keys with fp32 scales per warp or block; values in fp16 (Ampere), or transposed, padded
to 64 or 128 tokens and then in fp8 (Ada, Hopper, Blackwell). Speed: products in 8 bits count as twice as fast as in 16.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import torch
from torch.nn import functional as F

from oomdoctor.loading.attention.package import Package, refuse
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.attention_choice import EFFICIENT, HALF
from oomdoctor.vgpu.rules.attention import attend

VALUES_IN_HALF, VALUES_IN_FP8 = 4 / 3, 2.0
"""How much faster than in 16 bits: one product of two, or both, at twice the rate."""
_SCALES_PER_TOKENS = 32


def _tokens_and_heads(t: Any, layout: str) -> tuple[int, int]:
    return (t.shape[1], t.shape[2]) if layout == "NHD" else (t.shape[2], t.shape[1])


def _sage(q: Any, k: Any, v: Any, layout: str, causal: bool, with_lse: bool, fp8: bool, pad_tokens: int = 64) -> Any:
    """One call; shapes (batch, tokens, heads, head size) for layout ``NHD``, heads before tokens for ``HND``."""
    if not q.is_cuda:
        raise AssertionError("Input tensors must be on cuda.")
    if q.dtype not in HALF:
        raise AssertionError("Input tensors must be in dtype of torch.float16 or torch.bfloat16")
    head = q.shape[-1]
    if head > 128:
        raise ValueError(f"Unsupported head_dim: {head}")
    dtype, device = q.dtype, q.device
    if head not in (64, 128):
        q, k, v = (F.pad(t, (0, (64 if head < 64 else 128) - head)) for t in (q, k, v))
    mean = k.mean(dim=1 if layout == "NHD" else 2, keepdim=True)
    small = [torch.empty(t.shape, dtype=torch.int8, device=device) for t in (q, k)]
    for t in (q, k):
        tokens, heads = _tokens_and_heads(t, layout)
        small.append(torch.empty((t.shape[0], heads, -(-tokens // _SCALES_PER_TOKENS)), device=device))
    values = _values_in_fp8(v, layout, pad_tokens) if fp8 else [v.to(torch.float16)]
    query, key, value = (t.transpose(1, 2) if layout == "NHD" else t for t in (q, k, v))
    speed = VALUES_IN_FP8 if fp8 else VALUES_IN_HALF
    out = attend(EFFICIENT, query, key, value, causal=causal, speed=speed)
    out = (out.transpose(1, 2) if layout == "NHD" else out)[..., :head]
    del small, values, mean
    if not with_lse:
        return out
    tokens, heads = _tokens_and_heads(q, layout)
    return out.to(dtype), torch.empty((q.shape[0], heads, tokens), dtype=torch.float32, device=device)


def _values_in_fp8(v: Any, layout: str, pad: int) -> list[Any]:
    tokens, heads = _tokens_and_heads(v, layout)
    padded = -(-tokens // pad) * pad
    if pad > 64 and padded != tokens:
        zeros = list(v.shape)
        zeros[1 if layout == "NHD" else 2] = padded - tokens
        v = torch.cat([v, torch.zeros(zeros, dtype=v.dtype, device=v.device)], dim=1 if layout == "NHD" else 2)
    turned = torch.empty((v.shape[0], heads, v.shape[-1], padded), dtype=v.dtype, device=v.device)
    small = torch.empty(turned.shape, dtype=torch.float8_e4m3fn, device=v.device)
    return [small, torch.empty((v.shape[0], heads, v.shape[-1]), dtype=torch.float32, device=v.device)]


def _kernel(fp8: bool, pad: int = 64) -> Any:
    def kernel(
        q: Any, k: Any, v: Any, tensor_layout: str = "HND", is_causal: bool = False, sm_scale: Any = None,
        return_lse: bool = False, **options: Any,
    ) -> Any:  # fmt: skip
        return _sage(q, k, v, tensor_layout, is_causal, return_lse, fp8, pad)

    return kernel


def sageattn(
    q: Any, k: Any, v: Any, tensor_layout: str = "HND", is_causal: bool = False, sm_scale: Any = None,
    return_lse: bool = False, **options: Any,
) -> Any:  # fmt: skip
    """The kernel for the card, as the package picks it. Raises ValueError for cards that it has none for."""
    capability = _world.current().gpus[q.device.index or 0].card.compute_capability
    if capability not in ((8, 0), (8, 6), (8, 9), (9, 0), (12, 0)):
        raise ValueError(f"Unsupported CUDA architecture: sm{capability[0]}{capability[1]}")
    return _sage(
        q, k, v, tensor_layout, is_causal, return_lse, capability >= (8, 9), 128 if capability == (9, 0) else 64
    )


def sageattn_varlen(
    q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: Any = None, max_seqlen_k: Any = None,
    is_causal: bool = False, sm_scale: Any = None, **options: Any,
) -> Any:  # fmt: skip
    """Packed batches; shapes (tokens of the whole batch, heads, head size)."""
    return _sage(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), "NHD", is_causal, False, False).squeeze(0)


FUNCTIONS = {
    "sageattn": sageattn,
    "sageattn_varlen": sageattn_varlen,
    "sageattn_qk_int8_pv_fp16_cuda": _kernel(fp8=False),
    "sageattn_qk_int8_pv_fp16_triton": _kernel(fp8=False),
    "sageattn_qk_int8_pv_fp8_cuda": _kernel(fp8=True),
    "sageattn_qk_int8_pv_fp8_cuda_sm90": _kernel(fp8=True, pad=128),
}


def _fill(module: ModuleType) -> None:
    vars(module).update(FUNCTIONS, __version__=PACKAGE.version, __getattr__=refuse("sageattention"))


PACKAGE = Package(
    "sageattention",
    "2.2.0",
    {"sageattention": _fill},
    re.compile(r"\bsageatt|['\"]_?sage(?:_varlen|_qk\w+)?['\"]|\._?SAGE(?:_VARLEN|_QK\w+)?\b"),
    "sageattention",
    "_CAN_USE_SAGE_ATTN",
    {name: f"sageattention:{name}" for name in FUNCTIONS},
)
