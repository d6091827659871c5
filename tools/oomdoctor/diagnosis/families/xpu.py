"""Intel GPUs: PyTorch's own XPU allocator, the older extension, and the limit on one allocation."""

from __future__ import annotations

from oomdoctor.diagnosis.families.base import Example, Family, Numbers, gib, mib, squeezed
from oomdoctor.diagnosis.families.cuda_native import read_native
from oomdoctor.values import Kind

FAMILIES = (
    Family(
        name="xpu",
        device="xpu",
        anchor=squeezed(r"XPU out of memory"),
        needles=("XPUoutofmemory",),
        rank=60,
        read=read_native,
        examples=(
            Example(  # the extension of torch 1.x/2.0, no "free"
                "RuntimeError: XPU out of memory. Tried to allocate 2.25 GiB (GPU 0; 15.50 GiB total capacity; 13.75 "
                "GiB already allocated; 14.25 GiB reserved in total by PyTorch)",
                Numbers(gpu=0, requested=gib(2.25), capacity=gib(15.5), allocated=gib(13.75), cached=gib(0.5)),
            ),
            Example(
                "torch.OutOfMemoryError: XPU out of memory. Tried to allocate 768.00 MiB. GPU 0 has a total capacity "
                "of 11.50 GiB of which 96.00 MiB is free. Of the allocated memory 11.00 GiB is allocated by PyTorch, "
                "and 64.50 MiB is reserved by PyTorch but unallocated. Please use `empty_cache` to release all "
                "unoccupied cached memory.",
                Numbers(
                    gpu=0,
                    requested=mib(768),
                    capacity=gib(11.5),
                    free=mib(96),
                    allocated=gib(11),
                    cached=mib(64.5),
                ),
            ),
        ),
    ),
    Family(
        name="xpu_block",
        device="xpu",
        anchor=squeezed(r"can NOT allocate memory block with size larger than"),
        needles=("canNOTallocatememoryblock",),
        rank=61,
        kind=Kind.SINGLE_TENSOR,
        read=read_native,
        examples=(
            Example(
                "RuntimeError: Current platform can NOT allocate memory block with size larger than 4GB! Tried to "
                "allocate 5.50 GiB (GPU  1; 15.50 GiB total capacity; 1.25 GiB already allocated; 1.50 GiB reserved "
                "in total by PyTorch)",
                Numbers(gpu=1, requested=gib(5.5), capacity=gib(15.5), allocated=gib(1.25), cached=gib(0.25)),
            ),
        ),
    ),
)
