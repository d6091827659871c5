"""The options of ``PYTORCH_ALLOC_CONF`` / ``PYTORCH_CUDA_ALLOC_CONF``.

Two parsers exist in the wild and refuse bad input in different words: the one of torch 2.6 to 2.8, and the one that
tokenises first (2.9 on). Both are spoken here, chosen by ``torch_version``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .blocks import LARGE_SEGMENT, UNLIMITED

MIB = 1 << 20
INTERVALS = 16  # powers of two from 1 MiB to 32 GiB and above, each with its own number of divisions
MAX_REGISTER_THREADS = 128
TOKENISED = (2, 9)
RESET = ("max_split_size", "roundup_power2_divisions", "garbage_collection_threshold")


class BadSetting(ValueError):
    """A setting that PyTorch refuses, in PyTorch's words."""


@dataclass(frozen=True)
class Settings:
    """What the allocators of one process are told. Sizes are bytes."""

    backend: str = "native"
    expandable_segments: bool = False
    max_split_size: int = UNLIMITED
    max_non_split_rounding: int = LARGE_SEGMENT
    garbage_collection_threshold: float = 0.0
    roundup_power2_divisions: tuple[int, ...] = (0,) * INTERVALS
    large_segment_size: int = LARGE_SEGMENT
    release_lock_on_cudamalloc: bool = False
    graph_capture_record_stream_reuse: bool = False
    per_process_memory_fraction: float = 1.0
    throw_on_cudamalloc_oom: bool = False
    pinned_use_cuda_host_register: bool = False
    pinned_num_register_threads: int = 1
    pinned_use_background_threads: bool = False
    pinned_reserve_segment_size: int = 0
    pinned_max_round_threshold: int = UNLIMITED
    pinned_max_cached_size: int = UNLIMITED
    pinned_free_catch_all: bool = False
    text: str = ""

    @classmethod
    def parse(
        cls, text: str | None, torch_version: tuple[int, int] = (2, 13), base: Settings | None = None
    ) -> Settings:
        """Read the value of the environment variable, or new settings on top of ``base`` in a running program.

        Splitting, rounding and collection go back to their defaults whenever settings are read; the others stay.
        Raises :class:`BadSetting` where torch would raise, with torch's text.
        """
        from .parsing import parse

        before = base or cls()
        values = parse(text or "", torch_version, before.large_segment_size, base is not None)
        fresh = {name: getattr(cls, name) for name in RESET}
        return replace(before, **{**fresh, **values, "text": text or ""})

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], torch_version: tuple[int, int] = (2, 13)) -> Settings:
        """Read the variable that this version of torch reads: the CUDA one wins, the device-neutral one came later."""
        names = (
            ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
            if torch_version >= TOKENISED
            else ("PYTORCH_CUDA_ALLOC_CONF",)
        )
        for name in names:
            if name in environ:
                return cls.parse(environ[name], torch_version)
        return cls()

    def not_simulated(self) -> list[str]:
        """A sentence for every option that is set and that the virtual card does not follow."""
        found = []
        if self.backend != "native":
            found.append(
                f"the allocator backend {self.backend} is not simulated: memory was counted as PyTorch's own allocator "
                "takes it; the driver's pool fragments less and keeps freed memory by rules that are not known"
            )
        if self.pinned_use_background_threads:
            found.append(
                "pinned_use_background_threads is not simulated: freed page-locked blocks were looked through with every "
                "request, as without the option"
            )
        if self.graph_capture_record_stream_reuse:
            found.append("graph_capture_record_stream_reuse is not simulated: blocks wait until a capture has ended")
        return found

    def divisions_for(self, size: int) -> int:
        """How many steps lie between the two powers of two around ``size``; 0 or 1: no such rounding."""
        return self.roundup_power2_divisions[max(0, min(INTERVALS - 1, size.bit_length() - 21))]

    def round(self, size: int) -> int:
        """The block size for a request of ``size`` bytes."""
        if size < 512:
            return 512
        divisions = self.divisions_for(size)
        if divisions > 1 and size > 512 * divisions:
            return _next_division(size, divisions)
        return (size + 511) & ~511


def _next_division(size: int, divisions: int) -> int:
    if size & (size - 1) == 0:
        return size
    floor = 1 << (size.bit_length() - 1)
    step = floor >> (divisions.bit_length() - 1)
    if step == 0:
        return floor << 1
    return (size + step - 1) & ~(step - 1)
