"""The pinned allocator against PyTorch's own, step by step; run like ``compare.py``.

usage: compare_pinned.py SEEDS STEPS [--record FILE]

Compared are the bytes that the stub driver pinned and, from torch 2.7 on, ``torch.cuda.host_memory_stats``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import random
from pathlib import Path

import alone  # noqa: F401  (first: it decides what the next line imports)
import torch
from oomdoctor.vgpu.allocator import OutOfPinnedMemory, PinnedAllocator, PinnedBlock, Settings
from oomdoctor.vgpu.allocator.replay import SteppedClock
from torch_player import STUB, TORCH_VERSION, set_streams_manual

STREAMS = 3
LIMIT = int(os.environ.get("ORACLE_PINNED", str(8 << 30)))
LARGEST = math.log2(LIMIT) - 3  # the largest request, as a power of two
STUB.oracle_pinned.restype = ctypes.c_size_t


def generate(seed: int, count: int) -> list[str]:
    rng = random.Random(f"pinned/{seed}")
    steps = []
    for _ in range(count):
        roll = rng.random()
        if roll < 0.005:
            steps.append("e")
        elif roll < 0.01:
            steps.append(rng.choice("pt"))
        elif roll < 0.08:
            steps.append(f"d{rng.randrange(STREAMS)}")
        elif roll < 0.25:
            steps.append(f"r{rng.randrange(1 << 16)}@{rng.randrange(STREAMS)}")
        elif roll < 0.6:
            steps.append(f"f{rng.randrange(1 << 16)}")
        else:
            steps.append(f"a{int(2 ** rng.uniform(3, LARGEST))}")
    return steps


def compare(seed: int, count: int) -> dict[str, object]:
    set_streams_manual(True)
    torch.cuda.init()
    streams = [torch.cuda.default_stream()] + [torch.cuda.Stream() for _ in range(STREAMS - 1)]
    clock = SteppedClock()
    settings = Settings.parse(os.environ.get("PYTORCH_CUDA_ALLOC_CONF"), TORCH_VERSION)
    ours = PinnedAllocator(settings=settings, streams=clock, torch_version=TORCH_VERSION, limit=LIMIT)
    live: list[tuple[torch.Tensor, PinnedBlock]] = []
    failures = 0
    answers = []
    steps = generate(seed, count)
    for at, step in enumerate(steps):
        kind, rest = step[0], step[1:]
        if kind == "a":
            tensor = block = None
            try:
                tensor = torch.empty(int(rest), dtype=torch.uint8, pin_memory=True)
            except RuntimeError as error:
                assert str(error).startswith("CUDA error: out of memory"), error
                failures += 1
            try:
                block = ours.malloc(int(rest))
            except OutOfPinnedMemory as refused:
                assert refused.text == "CUDA error: out of memory"
            if (tensor is None) != (block is None):
                return {"differs": {"at": at, "step": step, "torch": tensor is not None, "ours": block is not None}}
            if tensor is not None and block is not None:
                live.append((tensor, block))
            del tensor
        elif kind in "fr" and not live:
            pass
        elif kind == "f":
            index = int(rest) % len(live)
            live[index], (tensor, block) = live[-1], live[index]
            live.pop()
            del tensor
            ours.free(block)
        elif kind == "r":
            which, _, stream = rest.partition("@")
            tensor, block = live[int(which) % len(live)]
            with torch.cuda.stream(streams[int(stream)]):
                tensor.to("cuda", non_blocking=True)
            ours.record_stream(block, int(stream))
            del tensor
        elif kind == "d":
            STUB.oracle_advance(ctypes.c_void_p(streams[int(rest)].cuda_stream))
            clock.advance(int(rest))
        elif kind == "e":
            torch._C._host_emptyCache()
            ours.empty_cache()
        elif kind in "pt" and hasattr(torch.cuda, "host_memory_stats"):
            if kind == "p":
                torch.cuda.reset_peak_host_memory_stats()
                ours.reset_peak_stats()
            else:
                torch.cuda.reset_accumulated_host_memory_stats()
                ours.reset_accumulated_stats()
        pinned = STUB.oracle_pinned()
        want: dict[str, int] = {"pinned": pinned}
        got = {"pinned": ours.pinned}
        if hasattr(torch.cuda, "host_memory_stats"):
            stats = torch.cuda.host_memory_stats()
            want.update({key: value for key, value in stats.items() if "_time" not in key})
            got.update(ours.memory_stats())
        if want != got:
            changed = {
                key: (want.get(key), got.get(key)) for key in want.keys() | got.keys() if want.get(key) != got.get(key)
            }
            return {"differs": {"at": at, "step": step, "stats": changed, "before": steps[max(0, at - 4) : at]}}
        answers.append(pinned)
    return {"steps": " ".join(steps), "pinned": answers[24::25], "failures": failures}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("seeds", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("--record", type=Path, help="a file")
    options = parser.parse_args()
    for seed in range(options.seeds):
        child = os.fork()
        if child == 0:
            result = compare(seed, options.steps)
            if options.record and "differs" not in result:
                options.record.write_text(json.dumps({**result, "limit": LIMIT}))
            print(
                json.dumps({key: value for key, value in result.items() if key not in ("steps", "pinned")}), flush=True
            )
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
