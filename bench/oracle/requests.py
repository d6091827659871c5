"""Random request sequences: sizes of every class, repeats, frees in any order, several streams, other events."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """One way to run the allocator. ``since``: the first torch version that has the option."""

    name: str
    conf: str = ""
    streams: int = 1
    fraction: float = 0.0
    vram: int = 4 << 30
    pools: bool = False
    switches: tuple[str, ...] = ()
    since: tuple[int, int] = (2, 6)


CONFS: dict[str, tuple[str, float, tuple[int, int]]] = {
    "native": ("", 0.0, (2, 6)),
    "fraction": ("", 0.5, (2, 6)),
    "expandable": ("expandable_segments:True", 0.0, (2, 6)),
    "expandable_fraction": ("expandable_segments:True", 0.6, (2, 6)),
    "max_split": ("max_split_size_mb:64", 0.0, (2, 6)),
    "max_split_rounding": ("max_split_size_mb:64,max_non_split_rounding_mb:100", 0.0, (2, 6)),
    "expandable_max_split": ("expandable_segments:True,max_split_size_mb:64", 0.0, (2, 6)),
    "roundup": ("roundup_power2_divisions:4", 0.0, (2, 6)),
    "roundup_list": ("roundup_power2_divisions:[1:2,32:4,256:8,>:1]", 0.0, (2, 6)),
    "release_lock": ("release_lock_on_cudamalloc:True", 0.0, (2, 6)),
    "gc": ("garbage_collection_threshold:0.5", 0.7, (2, 6)),
    "gc_max_split": ("garbage_collection_threshold:0.4,max_split_size_mb:128", 0.8, (2, 6)),
    "large_segment": ("large_segment_size_mb:64", 0.0, (2, 13)),
    "large_segment_expandable": ("large_segment_size_mb:64,expandable_segments:True", 0.0, (2, 13)),
    "conf_fraction": ("per_process_memory_fraction:0.5", 0.0, (2, 13)),
    "throw": ("throw_on_cudamalloc_oom:True", 0.0, (2, 13)),
    "throw_expandable": ("throw_on_cudamalloc_oom:True,expandable_segments:True", 0.0, (2, 13)),
    "throw_fraction": ("per_process_memory_fraction:0.6,throw_on_cudamalloc_oom:True", 0.0, (2, 13)),
}


def scenarios() -> list[Scenario]:
    """Every option on one stream and on several, and the ones that only exist in combination."""
    found = []
    for name, (conf, fraction, since) in CONFS.items():
        found.append(Scenario(f"{name}_1", conf, 1, fraction, since=since))
        found.append(Scenario(f"{name}_n", conf, 4, fraction, since=since))
    for name, conf in (("native", ""), ("expandable", "expandable_segments:True")):
        found.append(Scenario(f"{name}_pools", conf, 2, pools=True))
    # Not with max_split_size_mb: blocks that were split while segments were expandable are then given back to the
    # driver in part, which PyTorch does not survive.
    switches = ("expandable_segments:True", "expandable_segments:False")
    found.append(Scenario("switching", "", 2, switches=switches))
    return found


def generate(scenario: Scenario, seed: int, count: int) -> list[str]:
    """``count`` steps; the same for every torch version and machine."""
    rng = random.Random(f"{scenario.name}/{seed}")
    favourites = [int(2 ** rng.uniform(8, 29)) for _ in range(24)]
    steps = [f"m{scenario.fraction}"] if scenario.fraction else []
    pool = 0
    recording = False
    drift = 0.46
    while len(steps) < count:
        roll = rng.random()
        if len(steps) % 400 == 0:
            drift = rng.choice((0.4, 0.46, 0.52))
        if roll < 0.004 and not recording:  # PyTorch asserts that no pool is being recorded
            steps.append("e")
        elif roll < 0.008:
            steps.append(rng.choice("pt"))
        elif roll < 0.012:
            steps.append(f"o{rng.randrange(300, 1500) << 20}")
        elif scenario.pools and roll < 0.03:
            if recording:
                steps.append(f"h{pool}")
                recording = False
            else:
                # PyTorch miscounts the pages of a released private pool when segments are expandable, and stops itself
                # (cudaMalloc_count > 0 INTERNAL ASSERT FAILED); so there pools are kept.
                if pool and "expandable" not in scenario.name and rng.random() < 0.6:
                    steps.append(f"k{pool}")
                pool += 1
                steps.append(f"g{pool}")
                recording = True
        elif scenario.switches and roll < 0.02:
            steps.append(f"c{rng.choice(scenario.switches)}")
        elif scenario.streams > 1 and roll < 0.08:
            steps.append(f"d{rng.randrange(scenario.streams)}")
        elif scenario.streams > 1 and roll < 0.2 and not recording:
            # Before 2.13, uses recorded during a capture are remembered by the address of PyTorch's own block object,
            # and not forgotten: what follows then depends on the heap.
            steps.append(f"r{rng.randrange(1 << 16)}@{rng.randrange(scenario.streams)}")
        elif rng.random() < drift:
            steps.append(f"f{rng.randrange(1 << 16)}")
        else:
            size = rng.choice(favourites) if rng.random() < 0.6 else int(2 ** rng.uniform(8, 30))
            steps.append(f"a{size}@{rng.randrange(scenario.streams)}")
    return steps
