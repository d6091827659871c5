"""One scenario, played on PyTorch's allocator and on ours, step by step. Run by ``run.py`` in the CUDA interpreter.

usage: compare.py SCENARIO SEEDS STEPS [--record FOLDER]
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import time
import zlib
from pathlib import Path

import alone  # noqa: F401  (first: it decides what the next line imports)
import torch
from oomdoctor.vgpu.allocator import CachingAllocator, Settings
from oomdoctor.vgpu.allocator.replay import Player, SteppedClock, checksum
from requests import Scenario, generate, scenarios
from torch_player import TORCH_VERSION, TorchPlayer, set_streams_manual

OUTSIDE = 500 << 20
EVERY = 25  # steps between two recorded checksums


def compare(scenario: Scenario, seed: int, count: int, recorded: bool) -> dict[str, object]:
    """Play both; the record of the run, with ``differs`` naming the first step that is not equal."""
    set_streams_manual(True)
    steps = generate(scenario, seed, count)
    theirs = TorchPlayer(scenario.streams)
    clock = SteppedClock()
    ours = Player(
        CachingAllocator(
            scenario.vram,
            outside_bytes=OUTSIDE,
            settings=Settings.parse(scenario.conf, TORCH_VERSION),
            streams=clock,
            torch_version=TORCH_VERSION,
        ),
        clock,
    )
    sums: list[str] = []
    running = 0
    texts: dict[int, str] = {}
    spent = 0.0
    record: dict[str, object] = {
        "scenario": scenario.name,
        "conf": scenario.conf,
        "seed": seed,
        "torch": torch.__version__,
        "vram": scenario.vram,
        "outside": OUTSIDE,
    }
    for at, step in enumerate(steps):
        want_text = theirs.step(step)
        began = time.perf_counter()
        got_text = ours.step(step)
        spent += time.perf_counter() - began
        # What memory_stats flattens, and every so often the flat dictionary itself, which is slow to make.
        same = want_text == got_text
        same = same and torch._C._cuda_memoryStats(0) == ours.allocator.memory_stats_as_nested_dict()
        want, got = {}, {}
        if recorded or not same or (at + 1) % EVERY == 0:
            want, got = dict(torch.cuda.memory_stats()), ours.allocator.memory_stats()
        if not same or want_text != got_text or want != got:
            changed = {
                key: (want.get(key), got.get(key)) for key in want.keys() | got.keys() if want.get(key) != got.get(key)
            }
            record["differs"] = {
                "at": at,
                "step": step,
                "stats": changed,
                "texts": difference(want_text, got_text),
                "before": steps[max(0, at - 5) : at],
            }
            return record
        if recorded:
            running = checksum(want, running)
        if recorded and (at + 1) % EVERY == 0:
            sums.append(f"{running:08x}")
        if want_text:
            texts[at] = want_text
    shown = [*texts][:3] + [*texts][-1:]
    record.update(
        steps=base64.b85encode(zlib.compress(" ".join(steps).encode(), 9)).decode(),
        every=EVERY,
        sums="".join(sums),
        texts={str(at): texts[at] for at in shown},
        failures=len(texts),
        microseconds=round(spent / len(steps) * 1e6, 2),
    )
    return record


def difference(want: str, got: str) -> list[str]:
    """The parts of two texts that follow what they have in common."""
    same = len(os.path.commonprefix([want, got]))
    return [want[max(0, same - 40) : same + 120], got[max(0, same - 40) : same + 120]] if want != got else []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", help="names, joined by commas")
    parser.add_argument("seeds", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    known = {scenario.name: scenario for scenario in scenarios()}
    # PyTorch's allocator cannot be reset, so each seed has a process of its own, forked because importing torch takes
    # long. CUDA starts in the fork, and with it the settings are read.
    for name in options.scenario.split(","):
        for seed in range(options.seeds):
            child = os.fork()
            if child == 0:
                one(known[name], seed, options.steps, options.record if seed == 0 else None)
                os._exit(0)
            os.waitpid(child, 0)


def one(scenario: Scenario, seed: int, steps: int, folder: Path | None) -> None:
    """Play one seed and print its result as a line of JSON."""
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = scenario.conf
    began = time.perf_counter()
    result = compare(scenario, seed, steps, folder is not None)
    result["seconds"] = round(time.perf_counter() - began, 1)
    if folder is not None and "differs" not in result:
        (folder / f"{scenario.name}-{seed}.json").write_text(json.dumps(result))
    print(
        json.dumps({key: value for key, value in result.items() if key not in ("steps", "sums", "texts")}), flush=True
    )


if __name__ == "__main__":
    main()
