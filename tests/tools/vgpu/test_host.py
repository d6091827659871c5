"""Host memory by the way it is held, and its end."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from oomdoctor.vgpu import HostExhausted, VirtualCard, World, virtual_gpu  # noqa: E402

GIB = 1 << 30


def test_a_large_plain_tensor_is_counted_not_made(world: World) -> None:
    x = torch.empty(8 * GIB, dtype=torch.uint8)
    assert world.host.by_kind["anonymous"] == 8 * GIB
    del x
    assert world.host.by_kind["anonymous"] == 0
    assert world.host.peak >= 8 * GIB


def test_what_comes_back_from_the_card_is_anonymous(world: World) -> None:
    x = torch.empty(1 * GIB, dtype=torch.uint8, device="cuda")
    y = x.cpu()
    assert world.host.by_kind["anonymous"] == 1 * GIB
    del x
    assert torch.cuda.memory_allocated() == 0
    assert y.device.type == "cpu"


def test_page_locked_memory_is_rounded_and_kept(world: World) -> None:
    x = torch.empty(3 * GIB, dtype=torch.uint8).pin_memory()
    assert world.host.by_kind["pinned"] == 4 * GIB
    del x
    assert world.host.by_kind["pinned"] == 4 * GIB, "PyTorch keeps freed page-locked blocks"


def test_too_much_is_an_end_that_no_script_catches() -> None:
    with virtual_gpu(VirtualCard("a", "A", total_bytes=8 * GIB), ram_bytes=4 * GIB) as world:
        kept = torch.empty(3 * GIB, dtype=torch.uint8)
        with pytest.raises(HostExhausted) as death:
            try:
                torch.empty(2 * GIB, dtype=torch.uint8)
            except Exception:
                pytest.fail("a script must not be able to catch this")
        assert death.value.limit == 4 * GIB
        assert world.host.peak == 5 * GIB
        del kept
