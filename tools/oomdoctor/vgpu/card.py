"""What a virtual card is made of. Built from a plain dict, because it crosses into the user's interpreter as JSON."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class VirtualCard:
    """One simulated card. Sizes in bytes, rates in bytes/s and FLOP/s (dense peak of the maker)."""

    name: str
    label: str
    total_bytes: int
    compute_capability: tuple[int, int] = (8, 6)
    memory_bytes_per_second: float = 360e9
    fp32_flops: float = 12.7e12
    fp16_flops: float = 25e12
    bf16_flops: float | None = 25e12
    fp8_flops: float | None = None
    sm_count: int = 28
    pcie_bytes_per_second: float = 12e9
    """Page-locked host-to-card copies; pageable ones go at :attr:`pageable_bytes_per_second`."""
    pageable_bytes_per_second: float = 6e9
    matmul_efficiency: float | None = None
    """Share of the peak rates that matrix products reach, measured on this card; None: the usual one."""
    convolution_share: dict[str, float] | None = None
    """dtype -> what a convolution holds while it runs, as a share of input + output, measured; None: the rule."""
    context_bytes: int = 500 << 20
    other_process_bytes: int = 0
    """Held by other processes and the display all the time."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VirtualCard:
        """Unknown keys are ignored: a newer catalogue may know more than this version models."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in data.items() if k in known and v is not None}
        if "compute_capability" in values:
            major, minor = values["compute_capability"]
            values["compute_capability"] = (int(major), int(minor))
        return cls(**values)

    @property
    def has_tensor_cores(self) -> bool:
        return self.compute_capability >= (7, 0)
