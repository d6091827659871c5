"""What a traceback says: is it memory, which memory, where, why, and what follows."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from oomdoctor.values.base import Stage, Value


class Kind(str, Enum):
    """The family of the failure; each calls for different fixes."""

    VRAM_CAPACITY = "vram_capacity"
    SINGLE_TENSOR = "single_tensor"
    FRAGMENTATION = "fragmentation"
    OTHER_PROCESS = "other_process"
    HOST_RAM = "host_ram"
    PINNED_RAM = "pinned_ram"
    LOAD_TIME = "load_time"
    MASKED = "masked"
    NOT_MEMORY = "not_memory"


DeviceFamily = Literal["cuda", "hip", "mps", "xpu", "cpu"]
Confidence = Literal["high", "medium", "low"]


class Frame(Value):
    """One frame of the pasted Python traceback, outermost first."""

    file: str
    line: int | None
    function: str | None
    code: str | None = None
    """The source line as pasted, when it is there."""


class Diagnosis(Value):
    """The reading of a traceback. Bytes are None when the message does not say."""

    is_oom: bool
    kind: Kind
    stage: Stage
    component: str | None = None
    """Pipeline attribute name such as ``transformer``, ``text_encoder_2``, ``vae``."""
    device: DeviceFamily | None = None
    gpu_index: int | None = None
    requested_bytes: int | None = None
    capacity_bytes: int | None = None
    free_bytes: int | None = None
    allocated_bytes: int | None = None
    """Live tensors of PyTorch."""
    reserved_unallocated_bytes: int | None = None
    """Cached by PyTorch's allocator, not in use."""
    private_pool_bytes: int | None = None
    allowed_bytes: int | None = None
    """The cap of ``set_per_process_memory_fraction``, when the message prints one."""
    process_bytes: int | None = None
    """What the driver says this process holds, context included."""
    other_process_bytes: int | None = None
    error_type: str | None = None
    """Exception class as printed, e.g. ``torch.OutOfMemoryError``."""
    message: str | None = None
    """The error's own text, white space joined, bounded in length."""
    cause: str
    """One sentence for a newcomer."""
    evidence: tuple[str, ...] = ()
    """The quoted lines that the reading rests on."""
    frames: tuple[Frame, ...] = ()
    script_line: int | None = None
    """Line in the user's own script that was running."""
    confidence: Confidence
    next_step: str
    fix_families: tuple[str, ...] = ()
    """Technique tags that address this cause, best first (e.g. ``offload``, ``vae_memory``, ``quantization``)."""
    not_helpful: tuple[str, ...] = ()
    """Popular advice that would not help here, each with its reason."""
    warnings: tuple[str, ...] = ()
