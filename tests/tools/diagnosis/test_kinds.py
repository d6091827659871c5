"""What the figures mean: each kind on messages made for it, and the traps in between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.diagnosis import diagnose
from oomdoctor.diagnosis import numbers as figures
from oomdoctor.diagnosis.families import Numbers
from oomdoctor.diagnosis.tensors import as_requested, scores_guess, weight_matches
from oomdoctor.units import GIB, MIB
from oomdoctor.values import Diagnosis, Gpu, Hardware, Kind, Ram


def cuda(
    requested: str,
    capacity: str,
    free: str,
    allocated: str,
    cached: str,
    *,
    processes: str = "",
    who: str = "CUDA",
    more: str = "",
) -> Diagnosis:
    return diagnose(
        f"torch.OutOfMemoryError: {who} out of memory. Tried to allocate {requested}. GPU 0 has a total capacity of "
        f"{capacity} of which {free} is free. {processes}Of the allocated memory {allocated} is allocated by PyTorch, and "
        f"{cached} is reserved by PyTorch but unallocated.\n{more}"
    )


def _own(size: str) -> str:
    return f"Including non-PyTorch memory, this process has {size} memory in use. "


def test_weights_fill_the_card() -> None:
    d = cuda("36.00 MiB", "11.76 GiB", "14.00 MiB", "11.40 GiB", "52.00 MiB", processes=_own("11.74 GiB"))
    assert d.kind is Kind.VRAM_CAPACITY
    assert any("expandable_segments" in text and "52 MiB" in text for text in d.not_helpful)
    assert any("last straw" in text for text in d.warnings)


def test_one_tensor_larger_than_the_card() -> None:
    d = cuda("40.50 GiB", "23.65 GiB", "17.00 GiB", "5.00 GiB", "300.00 MiB", processes=_own("6.00 GiB"))
    assert d.kind is Kind.SINGLE_TENSOR and d.confidence == "high"
    assert "attention" in d.fix_families and "offload" not in d.fix_families
    assert any("larger than the whole card" in text for text in d.not_helpful)


def test_a_quarter_of_the_card_is_one_tensor_unless_the_card_is_full_already() -> None:
    assert cuda("7.00 GiB", "23.65 GiB", "6.00 GiB", "9.00 GiB", "1.00 GiB").kind is Kind.SINGLE_TENSOR
    assert cuda("7.00 GiB", "23.65 GiB", "1.00 GiB", "21.00 GiB", "1.00 GiB").kind is Kind.VRAM_CAPACITY


def test_fragmentation_needs_a_large_cache_and_room_in_it() -> None:
    d = cuda("3.00 GiB", "23.65 GiB", "1.00 GiB", "17.00 GiB", "4.50 GiB", processes=_own("22.40 GiB"))
    assert d.kind is Kind.FRAGMENTATION
    assert d.fix_families[0] == "allocator" and "expandable_segments" in d.next_step
    assert cuda("30.00 MiB", "23.65 GiB", "4.00 MiB", "23.00 GiB", "400.00 MiB").kind is Kind.VRAM_CAPACITY


def test_the_hint_is_named_where_it_cannot_be_followed() -> None:
    hip = cuda("3.00 GiB", "15.90 GiB", "0 bytes", "6.00 GiB", "7.00 GiB", who="HIP")
    assert hip.kind is Kind.FRAGMENTATION and hip.device == "hip"
    assert "allocator" not in hip.fix_families
    assert any("ROCm" in text for text in hip.not_helpful)
    assert any("PYTORCH_HIP_ALLOC_CONF" in text for text in hip.warnings)
    windows = cuda("3.00 GiB", "15.90 GiB", "0 bytes", "6.00 GiB", "7.00 GiB", more=r"in C:\Users\me\draw.py")
    assert windows.kind is Kind.FRAGMENTATION and "allocator" not in windows.fix_families
    on = cuda("30.00 MiB", "15.90 GiB", "0 bytes", "15.00 GiB", "9.00 MiB",
              more="export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True")  # fmt: skip
    assert any("already on" in text for text in on.not_helpful)


def test_another_process() -> None:
    listed = "Process 4711 has 15.00 GiB memory in use. " + _own("8.50 GiB")
    d = cuda("80.00 MiB", "23.60 GiB", "40.00 MiB", "8.00 GiB", "20.00 MiB", processes=listed)
    assert d.kind is Kind.OTHER_PROCESS and d.confidence == "high"
    assert d.other_process_bytes == 15 * GIB and d.fix_families[0] == "environment"
    d = diagnose(
        "RuntimeError: CUDA out of memory. Tried to allocate 1.00 GiB (GPU 0; 15.00 GiB total capacity; 700.00 MiB "
        "already allocated; 500.00 MiB free; 900.00 MiB reserved in total by PyTorch)"
    )
    assert d.kind is Kind.OTHER_PROCESS and d.confidence == "medium"


def test_a_container_renames_the_script() -> None:
    d = cuda("90.00 MiB", "14.70 GiB", "10.00 MiB", "14.40 GiB", "20.00 MiB",
             processes="Process 4207 has 14.69 GiB memory in use. ")  # fmt: skip
    assert d.kind is Kind.VRAM_CAPACITY
    assert d.process_bytes == int(14.69 * GIB) and any("container" in text for text in d.warnings)
    d = cuda("26.00 MiB", "23.65 GiB", "8.00 MiB", "4.10 GiB", "170.00 MiB",
             processes="Process 11 has 18.90 GiB memory in use. Process 12 has 4.73 GiB memory in use. ")  # fmt: skip
    assert d.kind is Kind.OTHER_PROCESS
    assert (d.process_bytes, d.other_process_bytes) == (int(4.73 * GIB), int(18.9 * GIB))


def test_refused_though_there_was_room() -> None:
    windows = cuda("80.00 MiB", "12.00 GiB", "6.00 GiB", "4.60 GiB", "14.00 MiB", more=r"C:\ai\run.py")
    assert windows.kind is Kind.HOST_RAM and "page file" in windows.next_step
    wsl = cuda("1.70 GiB", "23.99 GiB", "5.00 GiB", "17.50 GiB", "34.00 MiB", processes=_own("17179869184.00 GiB"))
    assert wsl.kind is Kind.HOST_RAM and ".wslconfig" in wsl.next_step and wsl.process_bytes is None
    linux = cuda("2.00 MiB", "3.68 GiB", "3.40 GiB", "50.00 MiB", "16.00 MiB", processes=_own("150.00 MiB"))
    assert linux.kind is Kind.HOST_RAM and "ulimit" in linux.next_step
    # a quarter of a MiB more than asked for is no room
    assert cuda("80.00 MiB", "12.00 GiB", "80.25 MiB", "11.60 GiB", "14.00 MiB").kind is Kind.VRAM_CAPACITY


def test_windows_is_known_from_the_machine_too() -> None:
    machine = Hardware(ram=Ram(total_bytes=16 * GIB, available_bytes=8 * GIB), os="Windows 11", driver_model="WDDM")
    text = (
        "CUDA out of memory. Tried to allocate 80.00 MiB. GPU 0 has a total capacity of 12.00 GiB of which 6.00 GiB is "
        "free. Of the allocated memory 4.60 GiB is allocated by PyTorch, and 14.00 MiB is reserved by PyTorch"
    )
    assert diagnose(text, hardware=machine).confidence == "high"
    assert diagnose(text).confidence == "medium"


def test_the_machine_fills_in_what_the_message_leaves_out() -> None:
    card = Gpu(index=0, name="NVIDIA GeForce RTX 3060", family="cuda", total_bytes=12 * GIB)
    ram = Ram(total_bytes=32 * GIB, available_bytes=5 * GIB, limit_bytes=16 * GIB)
    machine = Hardware(gpus=(card,), ram=ram, os="Linux")
    text = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 6.50 GiB"
    assert diagnose(text).kind is Kind.VRAM_CAPACITY
    d = diagnose(text, hardware=machine)
    assert d.kind is Kind.SINGLE_TENSOR and d.capacity_bytes is None
    killed = diagnose("Killed", hardware=machine)
    assert any("5.0 GiB" in w and "16.0 GiB" in w for w in killed.warnings)


def test_oversubscription() -> None:
    d = cuda("50.00 MiB", "8.00 GiB", "0 bytes", "14.45 GiB", "128.00 MiB")
    assert d.kind is Kind.VRAM_CAPACITY and "spilled" in d.cause


def test_a_cap_of_the_users_own() -> None:
    d = cuda("1.00 GiB", "31.84 GiB", "16.30 GiB", "16.90 GiB", "400.00 MiB", processes="17.50 GiB allowed; ")
    assert d.kind is Kind.VRAM_CAPACITY
    assert "set_per_process_memory_fraction" in d.cause and d.allowed_bytes == int(17.5 * GIB)


def test_attention_scores_in_the_frames() -> None:
    d = diagnose(
        "Traceback (most recent call last):\n"
        '  File "/v/site-packages/diffusers/models/attention_processor.py", line 599, in get_attention_scores\n'
        "    attention_scores = torch.baddbmm(\n"
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 44.00 GiB"
        " of which 25.00 MiB is free. Of the allocated memory 40.00 GiB is allocated by PyTorch, and 1.00 GiB is reserved"
    )
    assert d.kind is Kind.SINGLE_TENSOR and d.fix_families[0] == "attention"


def test_intel_refuses_large_pieces() -> None:
    d = cuda("16.00 GiB", "16.48 GiB", "16.07 GiB", "0 bytes", "0 bytes", who="XPU")
    assert d.kind is Kind.SINGLE_TENSOR and "one piece" in d.cause
    assert any("4 GiB" in text for text in d.warnings)
    older = diagnose(
        "RuntimeError: XPU out of memory. Tried to allocate 1.70 GiB (GPU 0; 15.50 GiB total capacity; 0 bytes already "
        "allocated; 0 bytes reserved in total by PyTorch)"
    )
    assert older.kind is Kind.SINGLE_TENSOR


def test_apple() -> None:
    d = diagnose(
        "RuntimeError: MPS backend out of memory (MPS allocated: 9.50 GiB, other allocations: 17.00 GiB, max allowed: "
        "27.20 GiB). Tried to allocate 300.00 MiB on private pool."
    )
    assert (d.kind, d.device, d.other_process_bytes) == (Kind.VRAM_CAPACITY, "mps", None)
    assert any("unified memory" in text for text in d.warnings) and any("WATERMARK" in text for text in d.warnings)
    d = diagnose("RuntimeError: Invalid buffer size: 600.00 GB")
    assert d.kind is Kind.SINGLE_TENSOR and any("WATERMARK" in text for text in d.not_helpful)


def test_pinned_memory_has_a_cuda_name() -> None:
    frames = (
        'Traceback (most recent call last):\n  File "/v/site-packages/diffusers/hooks/group_offloading.py", line 130, in '
        "_init_cpu_param_dict\n    cpu_param_dict[param] = param.data.cpu().pin_memory()\n"
    )
    d = diagnose(frames + "RuntimeError: CUDA error: out of memory")
    assert d.kind is Kind.PINNED_RAM and d.confidence == "high"
    assert "use_stream=False" in d.next_step
    bare = diagnose("RuntimeError: CUDA error: out of memory")
    assert bare.kind is Kind.MASKED and bare.confidence == "low"


def test_masks_say_what_they_hide() -> None:
    assert diagnose("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED").confidence == "medium"
    d = diagnose("RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED")
    assert d.confidence == "low" and any("broken installation" in text for text in d.warnings)


def test_the_message_with_figures_wins_over_the_mask() -> None:
    d = diagnose(
        "RuntimeError: Unable to find a valid cuDNN algorithm to run convolution\nRuntimeError: CUDA out of memory. Tried "
        "to allocate 20.00 MiB (GPU 0; 8.00 GiB total capacity; 7.30 GiB already allocated; 0 bytes free; 7.35 GiB "
        "reserved in total by PyTorch)"
    )
    assert d.kind is Kind.VRAM_CAPACITY and d.requested_bytes == 20 * MIB


def test_a_warning_alone_is_no_failure() -> None:
    d = diagnose(
        "[W1] memory allocation failed with OOM on device 0 while trying to allocate 3630170112 bytes (free: 202833920, "
        "total: 25250627584)."
    )
    assert d.is_oom and "Nothing" in d.next_step and any("not a failure" in text for text in d.warnings)


def test_torch_2_9_and_conv3d() -> None:
    text = (
        "torch==2.9.0+cu128\nTraceback (most recent call last):\n"
        '  File "/v/site-packages/torch/nn/modules/conv.py", line 712, in _conv_forward\n    return F.conv3d(\n'
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9.00 GiB"
    )
    d = diagnose(text)
    assert "cuDNN" in d.next_step and d.next_step in d.warnings and d.fix_families[0] == "environment"
    assert not any("cuDNN" in w for w in diagnose(text.replace("2.9.0", "2.8.0")).warnings)
    assert not any("cuDNN" in w for w in diagnose(text.replace("2.9.0", "2.10.0")).warnings)
    mended = Hardware(
        ram=Ram(total_bytes=GIB, available_bytes=GIB),
        os="Linux",
        versions={"torch": "2.9.1", "nvidia-cudnn-cu12": "9.15.1.9"},
    )
    assert not any("cuDNN" in w for w in diagnose(text.split("\n", 1)[1], hardware=mended).warnings)
    old = mended.model_copy(update={"versions": {"torch": "2.9.1", "nvidia-cudnn-cu12": "9.10.2.21"}})
    assert "cuDNN" in diagnose(text.split("\n", 1)[1], hardware=old).next_step


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("epoch 1 done\nKilled\n", Kind.HOST_RAM),
        ("Command failed with exit code 137", Kind.HOST_RAM),
        ("OSError: El archivo de paginación es demasiado pequeño (os error 1455)", Kind.HOST_RAM),
        ("MemoryError", Kind.HOST_RAM),
        ("RuntimeError: NPU out of memory", Kind.VRAM_CAPACITY),
    ],
)
def test_host_and_unknown_wordings(text: str, kind: Kind) -> None:
    assert diagnose(text).kind is kind


def test_training_is_out_of_scope_and_says_so() -> None:
    d = diagnose(
        'Traceback (most recent call last):\n  File "train_dreambooth_lora_flux.py", line 1800, in main\n'
        "    accelerator.backward(loss)\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 108.00 MiB"
    )
    assert d.stage.value == "training"
    assert "out of scope" in d.next_step and "gradient checkpointing" in d.next_step
    assert any("LoRA rank" in text for text in d.not_helpful)


_BYTES = st.none() | st.integers(0, 200 * GIB)


@given(st.builds(Numbers, requested=_BYTES, capacity=_BYTES, free=_BYTES, allocated=_BYTES, cached=_BYTES,
                 allowed=_BYTES, this_process=_BYTES,
                 processes=st.lists(st.tuples(st.integers(1, 99999), st.integers(0, 100 * GIB)), max_size=3).map(tuple)))  # fmt: skip
def test_the_judgements_never_fail_and_never_invent(n: Numbers) -> None:
    who = figures.owners(n, "cuda")
    assert who.own is None or who.own in (n.this_process, *(size for _, size in n.processes))
    assert who.other is None or who.other >= 0
    for question in (figures.fragmented, figures.oversubscribed, figures.over_cap):
        assert question(n) in (True, False)
    if figures.fragmented(n):
        assert n.cached and n.requested is not None
    if figures.one_tensor(n, "cuda"):
        assert n.requested is not None


def test_well_known_tensors() -> None:
    assert {m.known.component for m in weight_matches(80 * MIB)} == {"text_encoder"}
    assert weight_matches(72 * MIB)[0].known.component == "transformer"
    assert weight_matches(123_456_789) == []
    assert as_requested(20 * MIB + 1) == 22 * MIB
    assert "65536 x 65536" in (scores_guess(128 * GIB) or "")
    assert scores_guess(100 * MIB) is None
    assert "16384 x 16384" in (scores_guess(10 * 2 * 16384 * 16384 * 2, tokens=16384) or "")
