"""CUDA and HIP, PyTorch's own caching allocator: every wording from torch 1.0 on, and the non-fatal warning.

Three shapes: all figures in brackets (torch 1.0 to 2.0), sentences (2.1 on), and the warning that is logged at a
failed allocation before the cache is released and the request tried again.
"""

from __future__ import annotations

import re

from oomdoctor.diagnosis.families.base import Example, Family, Numbers, gib, mib, squeezed, to_bytes

_GPU = squeezed(r"\( GPU (\d{0,3}) ;|GPU (\d{0,3}) has a total capac")
_CAPACITY = (squeezed(r"{} total capacity"), squeezed(r"total capaci?ty of {}"))
_FREE = (squeezed(r"{} free [;)]"), squeezed(r"of which {} is free"))
_ALLOCATED = (squeezed(r"{} already allocated"), squeezed(r"allocated memory {} is allocated"))
_RESERVED = (squeezed(r"{} reserved in total"), squeezed(r"{} cached"))
_CACHED = squeezed(r"{} is reserved by PyTorch but")
_PRIVATE = squeezed(r"with {} allocated in private pools")
_ALLOWED = squeezed(r"{} allowed [;)]?")
_THIS = squeezed(r"this process has {} memory in use")
_OTHER = squeezed(r"Process (\d{1,10}) has {} memory in use")
_REQUESTED = squeezed(r"Tried to allocate {}")
_WARNING = squeezed(
    r"memory allocation failed with OOM on device (\d{1,3}) while trying to allocate (\d{1,20}) bytes"
    r"(?: \(free: (\d{1,20}), total: (\d{1,20})\)?)?"
)


def _first(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    for pattern in patterns:
        if m := pattern.search(text):
            return to_bytes(m.group(1))
    return None


def read_native(text: str, _: re.Match[str]) -> Numbers:
    """The figures of an allocator message in any of its shapes, cut-off ends included."""
    allocated = _first(_ALLOCATED, text)
    cached = _first((_CACHED,), text)
    reserved = _first(_RESERVED, text)
    if cached is None and reserved is not None:
        # The oldest message says "cached" for everything reserved beyond the live tensors' own segments.
        if "reservedintotal" in text and allocated is not None:
            cached = max(0, reserved - allocated)
        elif "reservedintotal" not in text:
            cached = reserved
    gpu = _GPU.search(text)
    index = next((g for g in gpu.groups() if g), None) if gpu else None
    this = _THIS.search(text)
    this_process = to_bytes(this.group(1)) if this else None
    others = tuple((int(m.group(1)), size) for m in _OTHER.finditer(text) if (size := to_bytes(m.group(2))) is not None)
    return Numbers(
        gpu=int(index) if index is not None else None,
        requested=_first((_REQUESTED,), text),
        capacity=_first(_CAPACITY, text),
        free=_first(_FREE, text),
        allocated=allocated,
        cached=cached,
        private=_first((_PRIVATE,), text),
        allowed=_first((_ALLOWED,), text),
        this_process=None if this_process == 0 and allocated else this_process,
        processes=others,
        unlimited=this is not None and this_process is None,
    )


def _read_warning(_: str, m: re.Match[str]) -> Numbers:
    device, requested, free, total = m.groups()
    return Numbers(
        gpu=int(device),
        requested=int(requested),
        free=int(free) if free else None,
        capacity=int(total) if total else None,
    )


_HINT = (
    " If reserved but unallocated memory is large try setting {}=expandable_segments:True to avoid fragmentation."
    "  See documentation for Memory Management  (https://docs.pytorch.org/docs/stable/notes/cuda.html)"
)

CUDA = Family(
    name="cuda",
    device="cuda",
    anchor=squeezed(r"CUDA (?:is )?out of (?:the )?memory"),
    needles=("outofmemory", "outofthememory"),
    rank=60,
    read=read_native,
    examples=(
        Example(  # torch 1.0 to 1.3
            "RuntimeError: CUDA out of memory. Tried to allocate 14.50 MiB (GPU 1; 7.80 GiB total capacity; "
            "6.57 GiB already allocated; 9.19 MiB free; 61.00 MiB cached)",
            Numbers(gpu=1, requested=mib(14.5), capacity=gib(7.8), allocated=gib(6.57), free=mib(9.19), cached=mib(61)),
        ),
        Example(  # 1.4 to 1.9
            "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 8.00 GiB total capacity; 5.50 GiB "
            "already allocated; 1.00 GiB free; 6.00 GiB reserved in total by PyTorch)",
            Numbers(
                gpu=0, requested=gib(2), capacity=gib(8), allocated=gib(5.5), free=gib(1), cached=gib(6) - gib(5.5)
            ),
        ),
        Example(  # 1.10 to 2.0, with the cap of set_per_process_memory_fraction
            "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB (GPU 0; 12.00 GiB total "
            "capacity; 4.50 GiB already allocated; 6.00 GiB free; 5.00 GiB allowed; 4.75 GiB reserved in total by "
            "PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb to avoid fragmentation."
            "  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF",
            Numbers(
                gpu=0,
                requested=mib(512),
                capacity=gib(12),
                allocated=gib(4.5),
                free=gib(6),
                allowed=gib(5),
                cached=gib(4.75) - gib(4.5),
            ),
        ),
        Example(  # 2.1: "capacty"
            "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 34.00 MiB. GPU 0 has a total capacty "
            "of 5.80 GiB of which 21.25 MiB is free. Including non-PyTorch memory, this process has 5.70 GiB memory "
            "in use. Of the allocated memory 5.55 GiB is allocated by PyTorch, and 31.50 MiB is reserved by PyTorch "
            "but unallocated. If reserved but unallocated memory is large try setting max_split_size_mb to avoid "
            "fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF",
            Numbers(
                gpu=0,
                requested=mib(34),
                capacity=gib(5.8),
                free=mib(21.25),
                this_process=gib(5.7),
                allocated=gib(5.55),
                cached=mib(31.5),
            ),
        ),
        Example(  # 2.2 to 2.4, the index streamed as a character: blank
            "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 22.00 MiB. GPU  has a total capacity "
            "of 47.40 GiB of which 8.50 MiB is free. Process 11 has 20.25 GiB memory in use. Process 12 has 27.00 GiB "
            "memory in use. Of the allocated memory 26.50 GiB is allocated by PyTorch, and 2.50 MiB is reserved by "
            "PyTorch but unallocated." + _HINT.format("PYTORCH_CUDA_ALLOC_CONF"),
            Numbers(
                requested=mib(22),
                capacity=gib(47.4),
                free=mib(8.5),
                processes=((11, gib(20.25)), (12, gib(27))),
                allocated=gib(26.5),
                cached=mib(2.5),
            ),
        ),
        Example(  # 2.5 on, everything that can be in it; the process size is "not available"
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.25 GiB. GPU 3 has a total capacity of "
            "31.50 GiB of which 15.75 GiB is free. Process 4711 has 1.50 GiB memory in use. Including non-PyTorch "
            "memory, this process has 17179869184.00 GiB memory in use. 16.50 GiB allowed; Of the allocated memory "
            "7.25 GiB is allocated by PyTorch, with 128.00 MiB allocated in private pools (e.g., CUDA Graphs), and "
            "6.00 GiB is reserved by PyTorch but unallocated." + _HINT.format("PYTORCH_ALLOC_CONF"),
            Numbers(
                gpu=3,
                requested=gib(3.25),
                capacity=gib(31.5),
                free=gib(15.75),
                processes=((4711, gib(1.5)),),
                allowed=gib(16.5),
                allocated=gib(7.25),
                private=mib(128),
                cached=gib(6),
                unlimited=True,
            ),
        ),
        Example("torch.OutOfMemoryError: CUDA out of memory.", Numbers()),
    ),
)

HIP = Family(
    name="hip",
    device="hip",
    anchor=squeezed(r"HIP out of memory"),
    needles=("HIPoutofmemory",),
    rank=60,
    read=read_native,
    examples=(
        Example(
            "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of "
            "15.98 GiB of which 642.00 MiB is free. Of the allocated memory 14.25 GiB is allocated by PyTorch, and "
            "301.50 MiB is reserved by PyTorch but unallocated." + _HINT.format("PYTORCH_HIP_ALLOC_CONF"),
            Numbers(
                gpu=0,
                requested=gib(1.5),
                capacity=gib(15.98),
                free=mib(642),
                allocated=gib(14.25),
                cached=mib(301.5),
            ),
        ),
    ),
)

TORN = Family(
    name="allocator_torn",
    anchor=squeezed(r"Tried to allocate {}|GPU \d{0,3} has a total capaci?ty of|is reserved by PyTorch but unalloc"),
    needles=("Triedtoallocate", "hasatotalcapac", "isreservedbyPyTorchbut"),
    rank=40,
    read=read_native,
    examples=(
        Example(
            "has a total capacity of 7.63 GiB of which 3.00 MiB is free. GPU 0 has a total capacity of 7.63 GiB",
            Numbers(gpu=0, capacity=gib(7.63)),
        ),
    ),
)

WARNING = Family(
    name="cuda_warning",
    device="cuda",
    anchor=_WARNING,
    needles=("allocationfailedwithOOM",),
    rank=20,
    read=_read_warning,
    fatal=False,
    examples=(
        Example(
            "[W914 10:11:12.123456789 CUDACachingAllocator.cpp:3933] memory allocation failed with OOM on device 2 "
            "while trying to allocate 1073741824 bytes (free: 104857600, total: 12582912000).",
            Numbers(gpu=2, requested=1 << 30, free=100 << 20, capacity=12_582_912_000),
        ),
    ),
)

FAMILIES = (CUDA, HIP, TORN, WARNING)
