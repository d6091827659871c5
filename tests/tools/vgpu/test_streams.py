"""Streams, events and the time they take: copies beside compute, frees that wait for a recorded stream."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from oomdoctor.planner import rates  # noqa: E402
from oomdoctor.vgpu import World, host_work  # noqa: E402
from oomdoctor.vgpu.clock import LAUNCH_SECONDS, QUEUE_LAUNCHES, Clock  # noqa: E402
from oomdoctor.vgpu.costs import MATMUL_EFFICIENCY  # noqa: E402

MIB = 1 << 20


def test_each_stream_has_its_pool(world: World) -> None:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        x = torch.empty(32 * MIB, dtype=torch.uint8, device="cuda")
    del x
    reserved = torch.cuda.memory_reserved()
    y = torch.empty(32 * MIB, dtype=torch.uint8, device="cuda")
    assert torch.cuda.memory_reserved() == reserved + 32 * MIB, "another stream's block is not taken"
    with torch.cuda.stream(side):
        z = torch.empty(32 * MIB, dtype=torch.uint8, device="cuda")
    assert torch.cuda.memory_reserved() == reserved + 32 * MIB, "its own stream takes it again"
    del y, z


def test_a_recorded_block_is_free_only_when_that_stream_has_passed(world: World) -> None:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        x = torch.empty(32 * MIB, dtype=torch.uint8, device="cuda")
    a = torch.empty(8192, 8192, device="cuda", dtype=torch.float16)
    for _ in range(4):
        a @ a
    x.record_stream(torch.cuda.current_stream())
    del x
    reserved = torch.cuda.memory_reserved()
    with torch.cuda.stream(side):
        y = torch.empty(32 * MIB, dtype=torch.uint8, device="cuda")
    assert torch.cuda.memory_reserved() > reserved, "compute still runs, so the block is not free yet"
    del y
    torch.cuda.synchronize()
    reserved = torch.cuda.memory_reserved()
    with torch.cuda.stream(side):
        z = torch.empty(32 * MIB, dtype=torch.uint8, device="cuda")
    assert torch.cuda.memory_reserved() == reserved
    del z


def test_page_locked_copies_run_beside_compute_and_pageable_ones_do_not(world: World) -> None:
    a = torch.empty(8192, 8192, device="cuda", dtype=torch.float16)
    host = torch.empty(256 * MIB, dtype=torch.uint8)
    pinned = host.pin_memory()
    side = torch.cuda.Stream()

    def taken(source: torch.Tensor, non_blocking: bool) -> float:
        torch.cuda.synchronize()
        before = world.gpu.clock.now
        for _ in range(8):
            a @ a
        with torch.cuda.stream(side):
            source.to("cuda", non_blocking=non_blocking)
        torch.cuda.synchronize()
        return world.gpu.clock.now - before

    def blocked(source: torch.Tensor, non_blocking: bool) -> float:
        """How long the program itself waits for the copy."""
        torch.cuda.synchronize()
        before = world.gpu.clock.host
        with torch.cuda.stream(side):
            source.to("cuda", non_blocking=non_blocking)
        return world.gpu.clock.host - before

    torch.cuda.synchronize()
    before = world.gpu.clock.now
    for _ in range(8):
        a @ a
    torch.cuda.synchronize()
    compute = world.gpu.clock.now - before
    assert taken(pinned, True) == pytest.approx(compute, rel=0.3)
    assert blocked(pinned, True) < 0.001
    assert blocked(host, False) >= 0.9 * host.nbytes / world.gpu.card.pageable_bytes_per_second


def test_events_measure_the_work_between_them(world: World) -> None:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    a = torch.empty(8192, 8192, device="cuda", dtype=torch.float16)
    start.record()
    a @ a
    end.record()
    end.synchronize()
    flops = 2 * 8192**3
    share = MATMUL_EFFICIENCY[world.gpu.card.compute_capability]
    assert start.elapsed_time(end) / 1000 == pytest.approx(flops / (world.gpu.card.fp16_flops * share), rel=0.1)


def test_a_stream_waits_for_another(world: World) -> None:
    side = torch.cuda.Stream()
    a = torch.empty(8192, 8192, device="cuda", dtype=torch.float16)
    a @ a
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        b = torch.empty(1024, device="cuda") + 1
    assert world.gpu.clock.streams[side.stream_id] > world.gpu.clock.streams[0] * 0.99
    assert b.shape == (1024,)


def test_a_card_has_32_streams_of_a_priority_and_gives_them_out_in_turn(world: World) -> None:
    first, *_, last = (torch.cuda.Stream() for _ in range(33))
    assert last == first and torch.cuda.Stream() != first
    assert torch.cuda.Stream(priority=-1) != first and first != torch.cuda.default_stream()


def test_the_host_runs_ahead_by_as_many_launches_as_a_stream_holds(world: World) -> None:
    clock = Clock()
    for _ in range(QUEUE_LAUNCHES):
        clock.launch(0, 1.0)
    assert clock.host < 0.1
    clock.launch(0, 1.0)
    assert clock.host == pytest.approx(1.0, abs=0.1), "it waits for the oldest"
    clock.launch(1, 1.0)
    assert clock.host < 1.1, "another stream has a queue of its own"
    assert clock.launches == QUEUE_LAUNCHES + 2
    clock.synchronize()
    clock.launch(0, 1.0)
    assert clock.host == pytest.approx(clock.streams[0] - 1.0, abs=0.1)


def test_the_planner_repeats_the_figures_of_the_clock() -> None:
    assert (rates.LAUNCH_SECONDS, rates.QUEUE_LAUNCHES) == (LAUNCH_SECONDS, QUEUE_LAUNCHES)


def test_hooks_take_time_of_the_host(world: World) -> None:
    plain, hooked = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    hooked._diffusers_hook = SimpleNamespace(hooks={"group_offloading": None, "layerwise_casting": None})
    for module in (plain, hooked):
        module.to("cuda")
    x = torch.zeros(1, 4, device="cuda")

    def host(module: torch.nn.Module) -> float:
        before = world.gpu.clock.host
        module(x)
        return world.gpu.clock.host - before

    assert host(hooked) - host(plain) == pytest.approx(host_work.GROUP_SECONDS + host_work.CAST_SECONDS)
