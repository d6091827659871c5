"""Mixed precision by ``torch.autocast``: what is cast, what is kept, and when it is let go."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from oomdoctor.vgpu import World  # noqa: E402

MIB = 1 << 20


def test_matmuls_go_down_and_norms_go_up(world: World) -> None:
    x = torch.empty(64, 1024, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        product = x @ x.t()
        normed = torch.nn.functional.layer_norm(product, (64,))
    assert product.dtype == torch.bfloat16
    assert normed.dtype == torch.float32
    assert (x @ x.t()).dtype == torch.float32


def test_attention_takes_the_lower_precision(world: World) -> None:
    q = torch.empty(1, 8, 256, 64, device="cuda")
    with torch.autocast("cuda", dtype=torch.float16):
        assert torch.nn.functional.scaled_dot_product_attention(q, q, q).dtype == torch.float16


def test_copies_of_weights_live_as_long_as_the_block(world: World) -> None:
    layer = torch.nn.Linear(1024, 1024, bias=False).cuda()
    x = torch.empty(8, 1024, device="cuda")
    layer(x)  # the first product on a stream takes a workspace that stays
    before = world.gpu.allocator.allocated
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.float16):
        first = layer(x)
        held = world.gpu.allocator.allocated - before
        assert held >= 2 * MIB
        second = layer(x)
        assert world.gpu.allocator.allocated - before == held + second.nbytes, "one copy serves both calls"
        del first, second
    assert world.gpu.allocator.allocated == before


def test_without_the_cache_the_copy_goes_at_once(world: World) -> None:
    layer = torch.nn.Linear(1024, 1024, bias=False).cuda()
    x = torch.empty(8, 1024, device="cuda")
    layer(x)  # the first product on a stream takes a workspace that stays
    before = world.gpu.allocator.allocated
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.float16, cache_enabled=False):
        y = layer(x)
    assert world.gpu.allocator.allocated - before == y.nbytes


def test_a_disabled_block_changes_nothing(world: World) -> None:
    x = torch.empty(64, 1024, device="cuda")
    with torch.autocast("cuda", dtype=torch.float16), torch.autocast("cuda", enabled=False):
        assert (x @ x.t()).dtype == torch.float32
