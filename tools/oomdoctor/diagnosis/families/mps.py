"""Apple's Metal backend: the watermark message, its form without a watermark, and the single buffer too large."""

from __future__ import annotations

import re

from oomdoctor.diagnosis.families.base import Example, Family, Numbers, gib, mib, squeezed, to_bytes, with_fields
from oomdoctor.values import Kind

_FIELDS = {
    "allocated": squeezed(r"MPS allocated : {}"),
    "metal": squeezed(r"other allocations : {}"),
    "allowed": squeezed(r"max allowed : {}"),
    "requested": squeezed(r"Tried to allocate {}"),
}


def _read(text: str, _: re.Match[str]) -> Numbers:
    return with_fields(Numbers(), _FIELDS, text)


def _read_buffer(_: str, m: re.Match[str]) -> Numbers:
    return Numbers(requested=to_bytes(m.group(1)))


FAMILIES = (
    Family(
        name="mps",
        device="mps",
        anchor=squeezed(r"MPS backend out of memory"),
        needles=("MPSbackendoutofmemory",),
        rank=60,
        read=_read,
        examples=(
            Example(
                "RuntimeError: MPS backend out of memory (MPS allocated: 7.25 GiB, other allocations: 512.00 MiB, max "
                "allowed: 9.07 GiB). Tried to allocate 1.50 GiB on private pool. Use "
                "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for memory allocations (may cause "
                "system failure).",
                Numbers(allocated=gib(7.25), metal=mib(512), allowed=gib(9.07), requested=gib(1.5)),
            ),
            Example(  # older builds write GB for the same unit
                "MPS backend out of memory (MPS allocated: 3.50 GB, other allocations: 1.25 GB). Tried to allocate "
                "256.00 MB on shared pool.",
                Numbers(allocated=gib(3.5), metal=gib(1.25), requested=mib(256)),
            ),
        ),
    ),
    Family(
        name="mps_buffer",
        device="mps",
        anchor=squeezed(r"Invalid buffer size : {}"),
        needles=("Invalidbuffersize",),
        rank=59,
        kind=Kind.SINGLE_TENSOR,
        read=_read_buffer,
        examples=(Example("RuntimeError: Invalid buffer size: 48.25 GB", Numbers(requested=gib(48.25))),),
    ),
    Family(
        name="mps_matmul",
        device="mps",
        anchor=squeezed(r"larger than currently supported by the MPS backend"),
        needles=("supportedbytheMPSbackend",),
        rank=55,
        kind=Kind.SINGLE_TENSOR,
        examples=(
            Example(
                "RuntimeError: Output size of the matrix multiplication is larger than currently supported by the MPS "
                "backend: 81000,81000, needs to be less than 2**32 elements"
            ),
        ),
    ),
)
