"""The allocators, held against what PyTorch's own answered to the same requests (recorded by ``bench/oracle/run.py``).

After every step all statistics went into a running checksum, so one equal checksum covers every step before it.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.vgpu.allocator import CachingAllocator, OutOfPinnedMemory, PinnedAllocator, PinnedBlock, Settings
from oomdoctor.vgpu.allocator.replay import SteppedClock, play

RECORDED = Path(__file__).parent / "recorded"
STEPS: dict[str, Any] = json.loads((RECORDED / "steps.json").read_text())
ANSWERS = {
    path.stem.partition("-")[2]: json.loads(path.read_text()) for path in sorted(RECORDED.glob("answers-*.json"))
}
RUNS = [(version, name) for version, answers in ANSWERS.items() for name in answers["runs"]]


def version_of(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def test_two_versions_and_every_option_are_recorded() -> None:
    assert len(ANSWERS) >= 2
    options = " ".join(run["conf"] for run in STEPS.values())
    for option in (
        "expandable_segments",
        "max_split_size_mb",
        "max_non_split_rounding_mb",
        "roundup_power2",
        "garbage_collection",
        "large_segment_size_mb",
        "per_process_memory_fraction",
        "throw_on",
    ):
        assert option in options
    assert sum(len(run["texts"]) for answers in ANSWERS.values() for run in answers["runs"].values()) > 50


@pytest.mark.parametrize(("version", "name"), RUNS)
def test_equal_to_pytorch_at_every_step(version: str, name: str) -> None:
    scenario, want = STEPS[name], ANSWERS[version]["runs"][name]
    clock = SteppedClock()
    allocator = CachingAllocator(
        scenario["vram"],
        outside_bytes=scenario["outside"],
        settings=Settings.parse(scenario["conf"], version_of(version)),
        streams=clock,
        torch_version=version_of(version),
    )
    steps = zlib.decompress(base64.b85decode(scenario["steps"])).decode().split()
    answers = play(allocator, clock, steps)
    every = want["every"]
    assert len(want["sums"]) == 8 * (len(steps) // every)
    for at in range(every - 1, len(steps), every):
        first = (at + 1) // every - 1
        assert f"{answers[at][0]:08x}" == want["sums"][8 * first : 8 * first + 8], f"between {at - every} and {at}"
    for at, text in want["texts"].items():
        assert answers[int(at)][1] == text


@pytest.mark.parametrize("version", ANSWERS)
def test_pinned_memory_as_pytorch_pins_it(version: str) -> None:
    record = ANSWERS[version]["pinned"]
    clock = SteppedClock()
    pinned = PinnedAllocator(
        settings=Settings(), streams=clock, torch_version=version_of(version), limit=record["limit"]
    )
    live: list[PinnedBlock] = []
    seen = []
    failures = 0
    for step in record["steps"].split():
        kind, rest = step[0], step[1:]
        if kind == "a":
            try:
                live.append(pinned.malloc(int(rest)))
            except OutOfPinnedMemory:
                failures += 1
        elif kind == "f" and live:
            at = int(rest) % len(live)
            live[at], block = live[-1], live[at]
            live.pop()
            pinned.free(block)
        elif kind == "r" and live:
            which, _, stream = rest.partition("@")
            pinned.record_stream(live[int(which) % len(live)], int(stream))
        elif kind == "d":
            clock.advance(int(rest))
        elif kind == "e":
            pinned.empty_cache()
        seen.append(pinned.pinned)
    assert seen[24::25] == record["pinned"]
    assert failures == record["failures"]
