"""Packed weights of GGUF files under what the converters of other layouts do to them."""

from __future__ import annotations

import gguf
import torch
from oomdoctor.loading.quantised.gguf import packed
from oomdoctor.vgpu import VirtualCard, virtual_gpu
from oomdoctor.vgpu.tensor import empty_virtual

Q8 = gguf.GGMLQuantizationType.Q8_0
BLOCK, SIZE = gguf.GGML_QUANT_SIZES[Q8]


def test_splitting_and_joining_leaves_them_packed() -> None:
    with virtual_gpu(VirtualCard("big", "Big", total_bytes=1 << 30)):
        whole = packed(empty_virtual((96, 2 * SIZE), torch.uint8, torch.device("cpu"), "anonymous"), Q8)
        assert whole.quant_shape == (96, 2 * BLOCK)
        query, key, value = torch.chunk(whole, 3, dim=0)
        assert [part.quant_shape for part in (query, key, value)] == [(32, 2 * BLOCK)] * 3
        first, rest = torch.split(whole, [16, 80], dim=0)
        assert (first.quant_shape, rest.quant_type) == ((16, 2 * BLOCK), Q8)
        swapped = torch.cat([rest, first], dim=0)
        assert (swapped.quant_shape, tuple(swapped.shape)) == ((96, 2 * BLOCK), (96, 2 * SIZE))
        assert whole[:8].quant_shape == (8, 2 * BLOCK)


def test_the_bytes_themselves_are_plain() -> None:
    with virtual_gpu(VirtualCard("big", "Big", total_bytes=1 << 30)):
        whole = packed(empty_virtual((4, SIZE), torch.uint8, torch.device("cpu"), "anonymous"), Q8)
        assert not hasattr(whole.as_tensor(), "quant_type")
        assert not hasattr(whole + 1, "quant_type")
        assert whole.to("cuda").quant_type == Q8
