"""The table of what cuDNN holds during a convolution: keys, first match, and the requests each row makes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.vgpu import VirtualCard, virtual_gpu
from oomdoctor.vgpu.convolution import HALF, SINGLE, TABLE, Convolution, held, row_for

MIB = 1 << 20
PICTURE = 1024 * 1024
UPSAMPLED = Convolution(
    (9, 0), HALF, 2, 3, 256, 256, 1, PICTURE, True, 512 * MIB, 512 * MIB, 256 * 256 * 9, 2
)  # fmt: skip
"""The convolution after the last upsampling of a FLUX or SDXL decoder, one picture of 1024 pixels."""


def batch(c: Convolution, n: int) -> Convolution:
    return replace(c, batch=n, input_bytes=n * c.input_bytes, output_bytes=n * c.output_bytes)


@pytest.mark.parametrize(
    ("capability", "pictures", "mib"),
    [((8, 9), 1, 1024), ((8, 9), 8, 8192), ((9, 0), 1, 1024), ((9, 0), 4, 2048), ((9, 0), 16, 8192), ((6, 1), 1, 2050)],
)
def test_copies_depend_on_architecture_and_batch(capability: tuple[int, int], pictures: int, mib: int) -> None:
    c = replace(batch(UPSAMPLED, pictures), capability=capability)
    assert sum(row_for(c).holds(c)) // MIB == mib


def test_many_channels_over_few_positions_are_transformed_on_pascal() -> None:
    c = Convolution((6, 0), HALF, 2, 3, 2560, 1280, 2, 256, True, 2 * 2560 * 256 * 2, 2 * 1280 * 256 * 2, 2560 * 1280 * 9, 2)  # fmt: skip
    (request,) = row_for(c).holds(c)
    assert request == 36 * (4 * 2560 * 1280 + 2 * 32 * (2560 + 1280))


def test_a_measured_share_goes_before_the_table() -> None:
    card = VirtualCard("own", "own", 8 << 30, convolution_share={"float16": 0.25})
    assert held(UPSAMPLED, card, "float16") == (256 * MIB,)
    assert held(UPSAMPLED, card, "bfloat16") == (1024 * MIB,)
    assert held(replace(UPSAMPLED, kernel=1), card, "float16") == ()


def test_the_copies_of_a_volume_are_two_requests() -> None:
    with virtual_gpu(VirtualCard("ada", "ada", 8 << 30, compute_capability=(8, 9)), replay=False), torch.no_grad():
        x = torch.empty(1, 32, 8, 64, 64, dtype=torch.float16, device="cuda")
        weight = torch.empty(64, 32, 3, 3, 3, dtype=torch.float16, device="cuda")
        before = torch.cuda.memory_stats()["allocation.all.allocated"]
        y = F.conv3d(x, weight, padding=1)
        assert torch.cuda.memory_stats()["allocation.all.allocated"] - before == 3
        assert torch.cuda.max_memory_allocated() == torch.cuda.memory_allocated() + x.nbytes + y.nbytes


def test_every_row_names_its_source() -> None:
    assert all(row.source for row in TABLE)
    assert row_for(replace(UPSAMPLED, dtype="torch.float64")).source.endswith("open")


@given(
    st.sampled_from([(6, 0), (7, 5), (8, 0), (8, 9), (9, 0), (12, 0)]),
    st.sampled_from([HALF, SINGLE]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 3, 7]),
    st.integers(1, 4096),
    st.integers(1, 4096),
    st.integers(1, 32),
    st.integers(1, 1 << 22),
)
def test_every_convolution_has_a_row(
    capability: tuple[int, int], dtype: str, dims: int, kernel: int, into: int, out: int, pictures: int, positions: int
) -> None:
    size = 2 if dtype == HALF else 4
    c = Convolution(
        capability, dtype, dims, kernel, into, out, pictures, positions, True, pictures * into * positions * size,
        pictures * out * positions * size, into * out * kernel**dims, size,
    )  # fmt: skip
    requests = row_for(c).holds(c)
    assert all(request > 0 for request in requests)
    assert kernel > 1 or not requests
