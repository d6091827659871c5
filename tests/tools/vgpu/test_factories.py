"""Tensors made on the card, in the types that torch can make."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from oomdoctor.vgpu import World


@pytest.mark.parametrize(
    ("make", "dtype", "words"),
    [
        (torch.randn, torch.float8_e4m3fn, "\"normal_kernel_cuda\" not implemented for 'Float8_e4m3fn'"),
        (torch.randn, torch.uint8, "\"normal_kernel_cuda\" not implemented for 'Byte'"),
        (torch.rand, torch.int64, "\"check_uniform_bounds\" not implemented for 'Long'"),
    ],
)
def test_noise_in_a_type_that_torch_cannot_draw_is_refused_in_its_words(
    world: World, make: Any, dtype: torch.dtype, words: str
) -> None:
    for size in ((4, 4), (4096, 4096)):
        with pytest.raises(NotImplementedError, match=re.escape(words)):
            make(size, device="cuda", dtype=dtype)
    with pytest.raises(NotImplementedError):
        torch.randn_like(torch.empty(2048, 2048, device="cuda"), dtype=torch.uint8)


def test_filling_a_tensor_on_meta_costs_nothing_and_draws_nothing(world: World) -> None:
    torch.manual_seed(3)
    expected = torch.get_rng_state()
    tensor = torch.empty(64, 64, device="meta")
    assert torch.nn.init.kaiming_uniform_(tensor) is tensor
    assert torch.nn.init.uniform_(tensor=tensor) is tensor
    torch.nn.init.constant_(tensor, 2.0)
    assert bool((torch.get_rng_state() == expected).all())
    real = torch.empty(4)
    assert torch.nn.init.constant_(real, 2.0).tolist() == [2.0] * 4
