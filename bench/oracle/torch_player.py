"""The steps of ``oomdoctor.vgpu.allocator.replay``, played on PyTorch's own allocator over the stub driver.

Runs in an interpreter with a CUDA build of torch, with the stub libraries preloaded.
"""

from __future__ import annotations

import ctypes

import torch

STUB = ctypes.CDLL(None)
TORCH_VERSION = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])


def set_streams_manual(manual: bool) -> None:
    STUB.oracle_manual(int(manual))


class TorchPlayer:
    """Plays steps through ``torch.empty``; stream 0 is the default stream, the others are made in order."""

    def __init__(self, streams: int) -> None:
        torch.cuda.init()
        self.streams = [torch.cuda.default_stream()] + [torch.cuda.Stream() for _ in range(streams - 1)]
        pointers = [stream.cuda_stream for stream in self.streams]
        assert pointers == sorted(pointers), "stream order must be pointer order"
        self.live: list[torch.Tensor] = []

    def step(self, step: str) -> str:
        kind, rest = step[0], step[1:]
        if kind == "a":
            size, _, stream = rest.partition("@")
            with torch.cuda.stream(self.streams[int(stream or 0)]):
                try:
                    self.live.append(torch.empty(int(size), dtype=torch.uint8, device="cuda"))
                except torch.OutOfMemoryError as error:
                    return str(error)
        elif kind in "fr" and not self.live:
            pass
        elif kind == "f":
            at = int(rest) % len(self.live)
            self.live[at] = self.live[-1]
            self.live.pop()
        elif kind == "r":
            which, _, stream = rest.partition("@")
            self.live[int(which) % len(self.live)].record_stream(self.streams[int(stream)])
        elif kind == "d":
            STUB.oracle_advance(ctypes.c_void_p(self.streams[int(rest)].cuda_stream))
        elif kind == "e":
            torch.cuda.empty_cache()
        elif kind == "m":
            torch.cuda.set_per_process_memory_fraction(float(rest))
        elif kind == "p":
            torch.cuda.reset_peak_memory_stats()
        elif kind == "t":
            torch.cuda.reset_accumulated_memory_stats()
        elif kind in "ghk":
            name = {"g": "begin", "h": "end", "k": "_cuda_releasePool"}[kind]
            if name == "begin":
                torch._C._cuda_beginAllocateToPool(0, (0, int(rest)))
            elif name == "end":
                _end_pool(int(rest))
            else:
                torch._C._cuda_releasePool(0, (0, int(rest)))
        elif kind == "o":
            STUB.oracle_set_outside(ctypes.c_size_t(int(rest)))
        elif kind == "c":
            torch.cuda.memory._set_allocator_settings(rest)
        else:
            raise ValueError(f"no such step: {step!r}")
        return ""


def _end_pool(pool: int) -> None:
    ends = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")  # torch 2.8 on, and before
    end = next(getattr(torch._C, name) for name in ends if hasattr(torch._C, name))
    end(0, (0, pool))
