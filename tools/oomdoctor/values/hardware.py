"""The machine a script runs on, and the cards of the catalogue."""

from __future__ import annotations

from oomdoctor.values.base import Value


class Card(Value):
    """A graphics card as it is sold: what a virtual card is made from. Rates are dense peak figures of the maker."""

    name: str
    """Catalogue name, e.g. ``rtx-3060-12gb``."""
    label: str
    """As ``torch.cuda.get_device_name`` prints it, e.g. ``NVIDIA GeForce RTX 3060``."""
    total_bytes: int
    """What ``torch.cuda.mem_get_info`` reports as total: a little under the number on the box."""
    compute_capability: tuple[int, int] | None
    memory_bytes_per_second: float
    fp32_flops: float
    fp16_flops: float
    """Dense tensor-core rate with fp32 accumulation where the card has one; FLOP/s (not TFLOP/s)."""
    bf16_flops: float | None
    """None where the card has no bf16 tensor cores."""
    fp8_flops: float | None
    sm_count: int | None
    pcie_generation: int | None
    pcie_lanes: int | None
    context_bytes: int
    """CUDA context and loaded kernels, outside PyTorch's allocator. Estimated; ``calibrate`` measures it."""
    source: str
    """Where the figures come from."""


class GpuProcess(Value):
    pid: int
    name: str | None = None
    used_bytes: int | None = None
    """None where the driver will not say (WSL, MIG, containers)."""


class PcieLink(Value):
    generation: int | None = None
    lanes: int | None = None
    max_generation: int | None = None
    max_lanes: int | None = None


class Gpu(Value):
    """A card in this machine."""

    index: int
    name: str
    family: str
    """``cuda``, ``hip``, ``mps`` or ``xpu``."""
    total_bytes: int | None = None
    free_bytes: int | None = None
    """Use this one for planning, not ``total_bytes``: other processes and the display are already out of it."""
    compute_capability: tuple[int, int] | None = None
    processes: tuple[GpuProcess, ...] = ()
    pcie: PcieLink | None = None
    driver_version: str | None = None
    mig: bool | None = None
    card: str | None = None
    """Name of the catalogue entry that this looks like, if any."""


class Ram(Value):
    total_bytes: int
    available_bytes: int
    """Use this for planning: already bounded by the container's limit."""
    limit_bytes: int | None = None
    """cgroup v1/v2 limit, when one is set below the machine's RAM."""
    swap_bytes: int | None = None
    pinned_cap_bytes: int | None = None
    """Most memory that can be page-locked (RLIMIT_MEMLOCK, WSL); None when there is no known cap."""


class Hardware(Value):
    """What ``detect_hardware`` found. A machine without a GPU is a normal answer: ``gpus`` is empty."""

    gpus: tuple[Gpu, ...] = ()
    ram: Ram
    os: str
    driver_model: str | None = None
    """``WDDM``, ``TCC``, ``WSL`` or None."""
    disk_free_bytes: int | None = None
    """Free space of the folder where offloading to disk would write."""
    python: str | None = None
    """The user's interpreter that ``versions`` were read from."""
    versions: dict[str, str | None] = {}
    """Distribution name -> installed version in the user's interpreter, None when absent."""
    notes: tuple[str, ...] = ()


class Target(Value):
    """What to plan for: one card's memory and the machine's RAM."""

    card: Card
    vram_bytes: int
    """Memory that the process may use, context included: the card's free memory."""
    ram_bytes: int
    pinned_cap_bytes: int | None = None
    gpu_count: int = 1
    versions: dict[str, str | None] = {}
    disk_free_bytes: int | None = None
