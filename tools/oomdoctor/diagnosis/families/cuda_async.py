"""The cudaMallocAsync backend (``PYTORCH_CUDA_ALLOC_CONF=backend:cudaMallocAsync``, ComfyUI's default)."""

from __future__ import annotations

import re

from oomdoctor.diagnosis.families.base import Example, Family, Numbers, gib, mib, squeezed, to_bytes, with_fields

_FIELDS = {
    "allocated": squeezed(r"Currently allocated : {}"),
    "requested": squeezed(r"Requested : {}"),
    "capacity": squeezed(r"Device limit : {}"),
    "free": squeezed(r"Free \(according to CUDA\) : {}"),
    "allowed": squeezed(r"memory fraction\) : {}"),
}
_ANCHOR = squeezed(r"Allocation on device (?:(\d{1,3}) (?:would exceed)?)?")


def _read(text: str, m: re.Match[str]) -> Numbers:
    limit = _FIELDS["allowed"].search(text)
    base = Numbers(
        gpu=int(m.group(1)) if m.group(1) else None,
        unlimited=limit is not None and to_bytes(limit.group(1)) is None,
    )
    return with_fields(base, _FIELDS, text)


FAMILIES = (
    Family(
        name="cuda_async",
        device="cuda",
        anchor=_ANCHOR,
        needles=("Allocationondevice",),
        rank=58,
        read=_read,
        examples=(
            Example(
                "torch.OutOfMemoryError: Allocation on device 1 would exceed allowed memory. (out of memory)\n"
                "Currently allocated     : 7.25 GiB\nRequested               : 96.00 MiB\n"
                "Device limit            : 8.00 GiB\nFree (according to CUDA): 0 bytes\n"
                "PyTorch limit (set by user-supplied memory fraction)\n                        : 17179869184.00 GiB",
                Numbers(
                    gpu=1, allocated=gib(7.25), requested=mib(96), capacity=gib(8), free=0, allowed=None, unlimited=True
                ),
            ),
            Example(
                "Allocation on device 0 would exceed allowed memory. (out of memory) Currently allocated : 2.50 GiB "
                "Requested : 1.00 GiB Device limit : 11.75 GiB Free (according to CUDA): 8.50 GiB PyTorch limit (set "
                "by user-supplied memory fraction) : 3.25 GiB",
                Numbers(
                    gpu=0,
                    allocated=gib(2.5),
                    requested=gib(1),
                    capacity=gib(11.75),
                    free=gib(8.5),
                    allowed=gib(3.25),
                ),
            ),
            Example("torch.OutOfMemoryError: Allocation on device", Numbers()),
        ),
    ),
)
