"""Pasted errors look like those of people, and the reader of tracebacks understands every style."""

from __future__ import annotations

import pytest
from oomdoctor.diagnosis import diagnose
from oomdoctor_evals.evidence import dmesg, nvidia_smi, styled
from oomdoctor_evals.values import Machine

ERROR = """\
Traceback (most recent call last):
  File "script.py", line 5, in <module>
    pipe.to("cuda")
  File "/opt/x/evals/oomdoctor_evals/sim/observer.py", line 101, in wrapped
    return self._observe(call)
           ^^^^^^^^^^^^^^^^^^^
  File "/opt/x/lib/python3.11/site-packages/diffusers/pipelines/pipeline_utils.py", line 545, in to
    module.to(device, dtype)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 72.00 MiB. GPU 0 has a total capacity of 11.76 GiB of \
which 58.69 MiB is free. Including non-PyTorch memory, this process has 11.69 GiB memory in use. Of the allocated \
memory 11.42 GiB is allocated by PyTorch, and 5.00 MiB is reserved by PyTorch but unallocated. If reserved but \
unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation.
"""


@pytest.mark.parametrize("style", ["plain", "log", "docker", "colab", "smi"])
@pytest.mark.parametrize("os", ["linux", "windows"])
def test_every_style_says_the_same(style: str, os: str) -> None:
    text = styled(ERROR, style, os)
    assert "oomdoctor" not in text and "/opt/x" not in text
    found = diagnose(text)
    assert found.is_oom
    assert found.requested_bytes == 72 << 20
    assert found.capacity_bytes == pytest.approx(11.76 * 2**30, rel=1e-3)
    assert found.allocated_bytes == pytest.approx(11.42 * 2**30, rel=1e-3)
    assert found.stage.value in ("place", "load")


def test_styles_differ_in_words_and_prefixes() -> None:
    texts = {style: styled(ERROR, style) for style in ("plain", "log", "docker", "colab")}
    assert len(set(texts.values())) == 4
    assert "capacty" in texts["log"] and "max_split_size_mb" in texts["log"]
    assert all(line.startswith("sd-worker-1  | ") for line in texts["docker"].strip().split("\n"))
    assert "PYTORCH_CUDA_ALLOC_CONF" in texts["colab"]


def test_the_kernel_and_the_driver_speak_of_the_machine() -> None:
    machine = Machine(gpu="rtx-3090-24gb", ram_mib=16384, used_by_others_mib=14000)
    assert diagnose("Killed\n" + dmesg(machine, 20 << 30)).kind.value == "host_ram"
    table = nvidia_smi(machine)
    assert "14000MiB" in table and "RTX 3090" in table and "24248MiB" in table
    assert "No running processes" in nvidia_smi(Machine(gpu="rtx-3090-24gb", ram_mib=16384))
