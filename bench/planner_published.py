"""Does the planner put techniques in the order of time that people measured on real cards?

``python bench/planner_published.py``: groups of published timings, each of one model, job and card; for every two of a
group that differ by a tenth or more, whether the estimates say the same. The measurements are those that
``bench/planner.py`` keeps on disk, with the published number of steps; where the picture is of another size, only the
order can be compared. Groups without a measurement are left out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from oomdoctor.hardware import cards
from oomdoctor.planner import estimate
from oomdoctor.values import Measurement, Stage, Strategy, Target

sys.path.insert(0, str(Path(__file__).resolve().parent))
from planner_jobs import JOBS
from planner_truth import Bench

APART = 1.1
"""Two timings closer than this say nothing about order."""


@dataclass(frozen=True)
class Group:
    """Seconds of one call, by strategy."""

    job: str
    card: str
    steps: int
    source: str
    seconds: dict[str, float]


GROUPS = (
    Group(
        "flux", "h100-80gb", 50, "Hugging Face blog, diffusers-quantization: 1024x1024",
        {
            "plain": 12, "fp8_casting(transformer)": 13, "bnb_nf4(transformer, text_encoder_2)+model_offload": 17,
            "bnb_int8(transformer, text_encoder_2)": 27, "fp8_casting(transformer)+group_offload(leaf, stream=true)": 58,
        },
    ),
    Group("flux", "h100-80gb", 28, "diffusers issue 11682", {"plain": 6.594, "sequential_offload": 68.406}),
    Group(
        "flux", "h100-80gb", 28, "diffusers-torchao README: eager",
        {"plain": 6.573, "torchao_fp8(transformer)": 8.402, "torchao_int8(transformer)": 8.551},
    ),
    Group(
        "flux", "a100-40gb", 50, "Battaglia 2025: 768x768",
        {
            "bnb_nf4(transformer, text_encoder_2)": 28, "bnb_nf4(transformer, text_encoder_2)+model_offload": 39,
            "model_offload": 56,
        },
    ),
    Group(
        "flux", "rtx-4090-24gb", 28, "diffusers documentation and lora-fast blog",
        {"bnb_nf4(transformer, text_encoder_2)": 32.602, "model_offload": 35.403},
    ),
    Group(
        "sdxl-batch4", "a100-40gb", 50, "Hugging Face blog, simple_sdxl_optimizations: four pictures",
        {"plain": 11.413, "model_offload": 16.0822, "sequential_offload": 67.034},
    ),
    Group(
        "sdxl-batch4", "p100-16gb", 30, "gperdrizet unit-6: 512x512",
        {"plain": 14.115, "model_offload": 18.237, "sequential_offload": 76.07},
    ),
)  # fmt: skip


def main() -> int:
    """Prints every group; 0 when all orders are right."""
    known = {c.name: c for c in cards()}
    right = wrong = 0
    for group in GROUPS:
        target = Target(card=known[group.card], vram_bytes=1 << 42, ram_bytes=1 << 42)
        bench = Bench(group.job, JOBS[group.job], target, run=False)
        try:
            measurement = bench.measurement()
        except FileNotFoundError as reason:
            print(f"{group.job} on {group.card}: left out, {reason}")
            continue
        said = {s: _seconds(s, bench, measurement, target, group.steps) for s in group.seconds}
        print(f"{group.job} on {group.card}, {group.steps} steps ({group.source})")
        for strategy, published in group.seconds.items():
            print(f"    published {published:6.1f} s  estimated {said[strategy]:6.1f} s  {strategy}")
        for a, b in combinations(group.seconds, 2):
            slow, fast = (a, b) if group.seconds[a] > group.seconds[b] else (b, a)
            if group.seconds[slow] < APART * group.seconds[fast]:
                continue
            if said[slow] > said[fast]:
                right += 1
            else:
                wrong += 1
                print(f"    wrong order: {fast} is faster than {slow}")
    print(f"{right} of {right + wrong} pairs in the published order")
    return 1 if wrong else 0


def _seconds(strategy: str, bench: Bench, measurement: Measurement, target: Target, steps: int) -> float:
    """Of one call with so many steps."""
    value = estimate(Strategy.parse(strategy), measurement, target, bench.job.script)
    measured = measurement.call["num_inference_steps"]
    assert isinstance(measured, int)
    denoising = sum(s.seconds or 0.0 for s in value.stages if s.stage is Stage.DENOISE)
    return (value.seconds or 0.0) + denoising * (steps / measured - 1.0)


if __name__ == "__main__":
    sys.exit(main())
