"""FlashAttention 2 (``flash_attn`` 2.8) and 3 (``flash_attn_interface``): the kernel that torch carries too.

Tensors are (batch, tokens, heads, head size), the packed forms (tokens, heads, head size). Beside the output the kernel
writes one fp32 number per query and head, and pads head sizes to a multiple of eight.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import torch

from oomdoctor.loading.attention.package import Package, refuse
from oomdoctor.vgpu.attention_choice import FLASH, HALF
from oomdoctor.vgpu.rules.attention import attend

LARGEST_HEAD = 256


def _check(q: Any, k: Any, v: Any, lowest: tuple[int, int], name: str) -> None:
    """The kernel's own refusals, in its words."""
    if q.dtype not in HALF or k.dtype != q.dtype or v.dtype != q.dtype:
        raise RuntimeError(f"{name} only support fp16 and bf16 data type")
    if not q.is_cuda:
        raise RuntimeError("Input tensor must be on CUDA device")
    if torch.cuda.get_device_capability(q.device) < lowest:
        raise RuntimeError(f"{name} only supports {'Ampere' if lowest[0] == 8 else 'Hopper'} GPUs or newer.")
    if q.shape[-1] > LARGEST_HEAD:
        raise RuntimeError(f"{name} forward only supports head dimension at most {LARGEST_HEAD}")


def _dense(q: Any, k: Any, v: Any, causal: bool, with_lse: bool) -> Any:
    query, key, value = (t.transpose(1, 2) for t in (q, k, v))
    out = attend(FLASH, query, key, value, None, causal, True).transpose(1, 2)
    if not with_lse:
        return out
    return out, torch.empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32, device=q.device), None


def _functions(lowest: tuple[int, int], name: str) -> dict[str, Any]:
    def flash_attn_func(
        q: Any, k: Any, v: Any, dropout_p: float = 0.0, softmax_scale: Any = None, causal: bool = False, *more: Any,
        return_attn_probs: bool = False, **options: Any,
    ) -> Any:  # fmt: skip
        """Shapes (batch, tokens, heads, head size)."""
        _check(q, k, v, lowest, name)
        return _dense(q, k, v, causal, return_attn_probs)

    def flash_attn_qkvpacked_func(qkv: Any, dropout_p: float = 0.0, **options: Any) -> Any:
        """Shape (batch, tokens, 3, heads, head size)."""
        q, k, v = qkv.unbind(dim=2)
        return flash_attn_func(q, k, v, **options)

    def flash_attn_varlen_func(
        q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: Any = None,
        max_seqlen_k: Any = None, *more: Any, causal: bool = False, return_attn_probs: bool = False, **options: Any,
    ) -> Any:  # fmt: skip
        """Shapes (tokens of the whole batch, heads, head size)."""
        _check(q, k, v, lowest, name)
        out = _dense(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), causal, False).squeeze(0)
        if not return_attn_probs:
            return out
        return out, torch.empty((q.shape[1], q.shape[0]), dtype=torch.float32, device=q.device), None

    return {
        "flash_attn_func": flash_attn_func,
        "flash_attn_qkvpacked_func": flash_attn_qkvpacked_func,
        "flash_attn_varlen_func": flash_attn_varlen_func,
    }


AMPERE, HOPPER = (8, 0), (9, 0)
FUNCTIONS_2 = _functions(AMPERE, "FlashAttention")
FUNCTIONS_3 = _functions(HOPPER, "FlashAttention")


def for_training(*args: Any, **options: Any) -> Any:
    """What only gradients need."""
    raise NotImplementedError("the virtual GPU has no stand-in for FlashAttention's autograd functions")


def _fill(module: ModuleType) -> None:
    vars(module).update(FUNCTIONS_2, __version__=TWO.version, __getattr__=refuse("flash_attn"))


def _fill_interface(module: ModuleType) -> None:
    training = ("_wrapped_flash_attn_forward", "_wrapped_flash_attn_backward")
    vars(module).update(FUNCTIONS_2, **dict.fromkeys(training, for_training))


def _fill_three(module: ModuleType) -> None:
    vars(module).update(FUNCTIONS_3, __getattr__=refuse("flash_attn_interface"))


TWO = Package(
    "flash-attn",
    "2.8.3",
    {"flash_attn": _fill, "flash_attn.flash_attn_interface": _fill_interface},
    re.compile(r"\bflash_attn\b|['\"]flash(?:_varlen)?['\"]|\.FLASH(?:_VARLEN)?\b"),
    "flash_attn",
    "_CAN_USE_FLASH_ATTN",
    {name: f"flash_attn:{name}" for name in ("flash_attn_func", "flash_attn_varlen_func")},
)
THREE = Package(
    "flash_attn_3",
    "3.0.0",
    {"flash_attn_interface": _fill_three},
    re.compile(r"(?<!\.)\bflash_attn_interface\b|['\"]_flash(?:_varlen)?_3['\"]|\._FLASH(?:_VARLEN)?_3\b"),
    "flash_attn_3",
    "_CAN_USE_FLASH_ATTN_3",
    {
        "flash_attn_3_func": "flash_attn_interface:flash_attn_func",
        "flash_attn_3_varlen_func": "flash_attn_interface:flash_attn_varlen_func",
    },
)
