"""Scripts that use attention packages beside torch, installed or not: what they hold, refuse, and say."""

from __future__ import annotations

import pytest
from oomdoctor.hardware import card as card_of
from oomdoctor.trial import Zygote, run_virtual
from oomdoctor.values import Trial

B, TOKENS, HEADS, HEAD = 2, 1000, 8, 64
ELEMENTS = B * TOKENS * HEADS * HEAD
INPUTS = f"""
import torch
with torch.no_grad():
    q, k, v = (torch.empty({B}, {TOKENS}, {HEADS}, {HEAD}, device="cuda", dtype=torch.DTYPE) for _ in range(3))
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    CALL
    assert out.shape == q.shape, out.shape
    assert out.is_contiguous()
    raise SystemExit(f"took {{torch.cuda.max_memory_allocated() - held}}")
"""


def run(zygote: Zygote, call: str, gpu: str = "rtx-4090-24gb", dtype: str = "bfloat16") -> Trial:
    source = INPUTS.replace("CALL", call.replace("\n", "\n    ")).replace("DTYPE", dtype)
    return run_virtual(zygote, source, card=card_of(gpu), ran="script", path="script.py", timeout=60.0)


def took(trial: Trial) -> int:
    assert trial.error is not None and "took" in trial.error, trial.error
    return int(trial.error.split("took ")[1].split()[0])


FLASH = "from flash_attn import flash_attn_func\nout = flash_attn_func(q, k, v)"
FLASH_3 = "from flash_attn_interface import flash_attn_func\nout = flash_attn_func(q, k, v)"
SAGE = "from sageattention import sageattn\nout = sageattn(q, k, v, tensor_layout='NHD')"
XFORMERS = "import xformers.ops\nout = xformers.ops.memory_efficient_attention(q, k, v)"
FLEX = (
    "from torch.nn.attention.flex_attention import flex_attention\n{}"
    "out = flex_attention(*(t.transpose(1, 2).contiguous() for t in (q, k, v))).transpose(1, 2).contiguous()"
)
LSE = B * HEADS * TOKENS * 4
SCORES = B * HEADS * TOKENS * TOKENS * 4


@pytest.mark.parametrize(
    ("call", "gpu", "least", "package"),
    [
        (FLASH, "rtx-4090-24gb", 2 * ELEMENTS + LSE, "flash-attn"),
        (FLASH_3, "h100-80gb", 2 * ELEMENTS + LSE, "flash_attn_3"),
        (XFORMERS, "rtx-4090-24gb", 2 * ELEMENTS + LSE, "xformers"),
        # Output, both in int8, values once more in fp16 (Ampere) or fp8 (Ada).
        (SAGE, "rtx-3090-24gb", 2 * ELEMENTS + 2 * ELEMENTS + 2 * ELEMENTS, "sageattention"),
        (SAGE, "rtx-4090-24gb", 2 * ELEMENTS + 2 * ELEMENTS + ELEMENTS * 1024 // TOKENS, "sageattention"),
    ],
)
def test_buffers_of_a_kernel(zygote: Zygote, call: str, gpu: str, least: int, package: str) -> None:
    trial = run(zygote, call, gpu)
    assert least <= took(trial) <= least * 1.04
    assert any(package in said for said in trial.assumptions)


def test_flex_attention_makes_all_scores_unless_it_is_compiled(zygote: Zygote) -> None:
    plain = took(run(zygote, FLEX.format("")))
    assert 2 * SCORES < plain < 4.5 * SCORES
    fused = took(run(zygote, FLEX.format("flex_attention = torch.compile(flex_attention)\n")))
    assert fused < SCORES


@pytest.mark.parametrize(
    ("call", "gpu", "dtype", "words"),
    [
        (FLASH, "rtx-4090-24gb", "float32", "only support fp16 and bf16"),
        (FLASH, "t4-16gb", "float16", "only supports Ampere GPUs or newer"),
        (FLASH_3, "rtx-4090-24gb", "bfloat16", "only supports Hopper GPUs or newer"),
        (SAGE, "t4-16gb", "float16", "Unsupported CUDA architecture: sm75"),
        (XFORMERS, "t4-16gb", "bfloat16", "No operator found for `memory_efficient_attention_forward`"),
        (
            "import flash_attn\nout = flash_attn.bert_padding",
            "rtx-4090-24gb",
            "float16",
            "no stand-in for flash_attn.bert_padding",
        ),
    ],
)
def test_a_kernel_refuses_what_the_package_refuses(zygote: Zygote, call: str, gpu: str, dtype: str, words: str) -> None:
    assert words in (run(zygote, call, gpu, dtype).error or "")


def test_a_package_that_the_script_does_not_name_stays_absent(zygote: Zygote) -> None:
    call = "import importlib\nout = importlib.import_module('fla' + 'sh_attn')"
    assert "No module named 'flash_attn'" in (run(zygote, call).error or "")


@pytest.mark.parametrize("backend", ["xformers", "sage", "flash", "flash_varlen", "sage_hub", "flash_hub", "flex"])
def test_backends_of_diffusers(zygote: Zygote, backend: str) -> None:
    call = (
        "from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn\n"
        f"with attention_backend('{backend}'):\n    out = dispatch_attention_fn(q, k, v).contiguous()"
    )
    assert took(run(zygote, call)) >= 2 * ELEMENTS
