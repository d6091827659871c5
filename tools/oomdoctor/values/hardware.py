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
    pinned_bytes_per_second: float | None = None
    """Host to card from page-locked memory, measured; None: from the PCIe link."""
    pageable_bytes_per_second: float | None = None
    matmul_efficiency: float | None = None
    """Share of ``fp16_flops`` that matrix products reach, measured; None: what eager PyTorch usually gets."""
    convolution_share: dict[str, float] | None = None
    """dtype -> what a convolution holds while it runs, as a share of its input + output, measured."""


class Calibration(Value):
    """What was measured on a real card."""

    label: str
    driver: str | None = None
    torch: str
    cuda: str | None = None
    cudnn: int | None = None
    capability: tuple[int, int]
    date: str
    """ISO 8601."""
    total_bytes: int
    context_bytes: int | None = None
    """Of a process that has loaded the kernels of matrix products, attention and convolutions."""
    h2d_pinned_bytes_per_second: float
    h2d_pageable_bytes_per_second: float
    d2h_pinned_bytes_per_second: float
    matmul_flops: dict[str, float]
    """dtype -> FLOP/s of 4096 x 4096 products."""
    attention_flops: float
    convolution_share: dict[str, float]
    matmul_workspace_bytes: int


class GpuProcess(Value):
    """A process that holds memory of a card (NVIDIA, and AMD on Linux)."""

    pid: int
    """As the driver numbers it: inside a container it may be another number there."""
    name: str | None = None
    """File name of the program, None where the driver will not say."""
    used_bytes: int | None = None
    """Bytes of the card. None where the driver will not say (WSL, MIG, containers). Not for planning: the card's
    ``free_bytes`` has it out already; it tells whom to close."""


class PcieLink(Value):
    """The card's link to the CPU (Linux and Windows). Plan with ``max_generation`` x ``max_lanes``."""

    generation: int | None = None
    """PCIe generation right now: an idle card goes down to 1 to save power, so not for planning."""
    lanes: int | None = None
    """Lanes in use right now; not for planning either."""
    max_generation: int | None = None
    """The best that card and slot can do together."""
    max_lanes: int | None = None
    """The most lanes that card and slot have together: 4 or 8 in many second slots and external boxes."""


class Gpu(Value):
    """A card in this machine."""

    index: int
    """Number among the cards of its maker, in the order of the PCI bus; all platforms. MIG slices share the number of
    their card. Not always torch's number: see the notes."""
    name: str
    """As the driver prints it; all platforms."""
    family: str
    """``cuda``, ``hip``, ``mps`` or ``xpu``: what torch calls its backend (hip cards are ``cuda`` devices in scripts)."""
    total_bytes: int | None = None
    """Bytes that torch can see in all; the driver's own reserve is already out of it. With mps: the RAM it shares.
    None where no tool tells. For planning only where nothing else will use the card."""
    free_bytes: int | None = None
    """Use this one for planning, not ``total_bytes``: other processes and the display are already out of it.
    None where no tool tells (mps, xpu)."""
    compute_capability: tuple[int, int] | None = None
    """cuda only, for example (8, 6): decides bf16 (from 8.0), fp8 (from 8.9) and the attention kernels."""
    processes: tuple[GpuProcess, ...] = ()
    """Who holds its memory, largest first (cuda; hip on Linux; in containers and WSL often empty although some is
    held)."""
    pcie: PcieLink | None = None
    """The link to the CPU (cuda; hip on Linux), None where it is not told: decides how fast offloading is."""
    driver_version: str | None = None
    """As the driver numbers itself (cuda; hip on Linux)."""
    mig: bool | None = None
    """cuda only. True: this is a slice of a card, plan with the slice. None: the card cannot be sliced."""
    card: str | None = None
    """Name of the catalogue entry that this looks like, if any."""


class Ram(Value):
    """Memory of the machine, bytes; all platforms."""

    total_bytes: int
    """Bytes built in (in WSL: what the virtual machine was given). Not for planning."""
    available_bytes: int
    """Use this for planning: what can be had without swapping, already bounded by the container's limit."""
    limit_bytes: int | None = None
    """Bytes of the cgroup v1/v2 limit, the tightest of all levels, when one is set below the machine's RAM (Linux):
    the container is killed above it. ``available_bytes`` has it in already."""
    swap_bytes: int | None = None
    """Bytes of the swap space. Not for planning: offloading through swap is slower than from a file."""
    pinned_cap_bytes: int | None = None
    """Most bytes that can be page-locked for a GPU (WSL, Windows, containers with a limit): the bound for offloading
    with a stream. None when there is no known cap.
    RLIMIT_MEMLOCK is not one: GPU drivers lock pages themselves."""


class Hardware(Value):
    """What ``detect_hardware`` found. A machine without a GPU is a normal answer: ``gpus`` is empty."""

    gpus: tuple[Gpu, ...] = ()
    """Cards that torch could use, NVIDIA's first; on every platform as far as its tools tell."""
    ram: Ram
    """Memory of the machine."""
    os: str
    """Name and version of the system, ``(WSL)`` behind it inside Windows; all platforms."""
    driver_model: str | None = None
    """Windows and WSL: ``WDDM``, ``TCC`` or ``WSL``; else None. With WDDM and WSL too little VRAM shows as slowness, not as an error."""
    disk_free_bytes: int | None = None
    """Free bytes of the folder where offloading to disk would write (the working folder); all platforms. None: the
    system does not tell. The bound for offloading to disk."""
    python: str | None = None
    """The user's interpreter that ``versions`` were read from."""
    versions: dict[str, str | None] = {}
    """Distribution name -> installed version in the user's interpreter, None when absent; ``python`` among them."""
    notes: tuple[str, ...] = ()
    """What a person should know and no field says: what is unknown and why, limits, builds that do not match."""


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
