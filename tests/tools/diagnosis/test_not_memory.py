"""Errors that are not about memory, text without any error, and words that only look like one."""

from __future__ import annotations

import pytest
from oomdoctor.diagnosis import diagnose
from oomdoctor.errors import NoError
from oomdoctor.values import Kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n\n  ",
        "How do I make my pictures sharper? The prompt is about a fox.",
        (
            "Loading pipeline components...: 100%|██████████| 7/7 [00:03<00:00,  2.1it/s]\n"
            "100%|██████████| 28/28 [00:30<00:00,  1.1s/it]\nsaved fox.png\n"
        ),
        "2026-01-01 10:00:00,000 - INFO - peak memory 11.2 GiB, all fine\n" * 50,
        "{'transformer': 'cpu', 'text_encoder': 0, 'vae': 1}",
        "import torch\npipe = FluxPipeline.from_pretrained('x')\n",
    ],
)
def test_text_without_an_error_is_refused(text: str) -> None:
    with pytest.raises(NoError, match="Paste"):
        diagnose(text)


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nKeyError: 'unet'", "KeyError"),
        ("ModuleNotFoundError: No module named 'diffusers'", "ModuleNotFoundError"),
        ("huggingface_hub.errors.GatedRepoError: 401 Client Error.", "huggingface_hub.errors.GatedRepoError"),
    ],
)
def test_other_errors_are_named_but_not_explained(text: str, type_: str) -> None:
    d = diagnose(text)
    assert (d.is_oom, d.kind, d.error_type) == (False, Kind.NOT_MEMORY, type_)
    assert "memory" in d.next_step


def test_a_traceback_without_its_end_asks_for_it() -> None:
    d = diagnose('Traceback (most recent call last):\n  File "draw.py", line 3, in <module>\n    pipe(prompt)\n')
    assert not d.is_oom and d.confidence == "low" and "last lines" in d.next_step
    assert d.script_line == 3


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        (("RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cpu and cuda:0! "
         "(when checking argument for argument index in method wrapper_CUDA__index_select)"), "every component"),
        ("RuntimeError: Input type (torch.cuda.FloatTensor) and weight type (torch.FloatTensor) should be the same",
         "leaf_level"),
        ("RuntimeError: mat1 and mat2 must have the same dtype, but got Float and Float8_e4m3fn", "enable_layerwise_casting"),
        ("RuntimeError: Input type (c10::BFloat16) and bias type (float) should be the same", "same dtype"),
        ("NotImplementedError: Cannot copy out of meta tensor; no data! Please use torch.nn.Module.to_empty()", "before"),
        ("ValueError: `.to` is not supported for `4-bit` or `8-bit` bitsandbytes models.", "Remove that .to()"),
        ("The module 'X' has been loaded in `bitsandbytes` 8bit and moving it to cpu via `.to()` is not supported.", "0.48"),
        ("image_processor.py:147: RuntimeWarning: invalid value encountered in cast", "bfloat16"),
        ("RuntimeError: cannot pin 'torch.cuda.CharTensor' only dense CPU tensors can be pinned", "use_stream=False"),
        ("AttributeError: 'FluxPipeline' object has no attribute 'enable_vae_tiling'", "pipe.vae.enable_tiling()"),
        (("ValueError: Cannot apply group offloading to a module that is already applying an alternative offloading "
         "strategy from Accelerate."), "Keep one"),
    ],
)  # fmt: skip
def test_errors_after_memory_patches_come_with_their_cure(text: str, cure: str) -> None:
    d = diagnose(text)
    assert not d.is_oom and d.kind is Kind.NOT_MEMORY
    assert cure in d.next_step


def test_a_black_picture_does_not_hide_an_out_of_memory() -> None:
    d = diagnose(
        "image_processor.py:147: RuntimeWarning: invalid value encountered in cast\n"
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    )
    assert d.is_oom


def test_illegal_access_is_no_shortage_but_tiling_may_help() -> None:
    d = diagnose("RuntimeError: CUDA error: an illegal memory access was encountered")
    assert not d.is_oom and d.fix_families[0] == "vae_memory" and d.confidence == "medium"
