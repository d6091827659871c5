"""Time on two cards: one host, and copies between them that both wait for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")

from oomdoctor.vgpu import VirtualCard, World, virtual_gpu  # noqa: E402

GIB = 1 << 30


@pytest.fixture
def pair() -> Iterator[World]:
    cards = [VirtualCard("rtx-3060-12gb", "NVIDIA GeForce RTX 3060", total_bytes=12 * GIB) for _ in range(2)]
    with virtual_gpu(cards, ram_bytes=64 * GIB) as world:
        yield world


def work(device: str, times: int = 20) -> torch.Tensor:
    a = torch.empty(8192, 8192, device=device, dtype=torch.float16)
    for _ in range(times):
        a @ a
    return a


def test_what_one_card_hands_to_the_next_is_done_one_after_the_other(pair: World) -> None:
    a = work("cuda:0")
    first = pair.now
    b = a.to("cuda:1")
    moved = pair.now - first
    b.normal_()
    work("cuda:1")
    assert moved == pytest.approx(a.numel() * 2 / pair.gpu.card.pcie_bytes_per_second, rel=0.05)
    assert pair.now == pytest.approx(2 * first + moved, rel=0.05)


def test_cards_that_share_nothing_work_at_the_same_time(pair: World) -> None:
    work("cuda:0")
    alone = pair.now
    work("cuda:1")
    assert pair.now < 1.2 * alone


def test_the_host_that_waits_for_one_card_launches_late_on_the_other(pair: World) -> None:
    work("cuda:0").cpu()
    waited = pair.now
    work("cuda:1", 1)
    assert pair.now > waited
    assert pair.gpus[1].clock.host >= pair.gpus[0].clock.host * 0.99
