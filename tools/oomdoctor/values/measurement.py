"""What a model weighs and what one call of it needs, from one virtual run on an unlimited card."""

from __future__ import annotations

from oomdoctor.values.base import Stage, Value


class Block(Value):
    """A ModuleList family of a component, the unit of block-level offloading."""

    path: str
    """Attribute path inside the component, e.g. ``transformer_blocks``."""
    count: int
    largest_bytes: int
    total_bytes: int


class Component(Value):
    """One model of the pipeline. All sizes are bytes of its parameters and buffers, a tied weight counted once."""

    name: str
    class_name: str
    params: int
    """Elements of the parameters, as model cards count them: tied ones once, no buffers, packed ones as before
    packing."""
    loaded_bytes: int
    """As the real loader leaves it: dtype, ``_keep_in_fp32_modules``, buffers. The one to plan with while it is whole
    on the card."""
    blocks: tuple[Block, ...] = ()
    """Every family of blocks that block-level offloading moves one by one: lists right below the model, and in the
    parts that the model names (encoder and decoder of some VAEs)."""
    largest_block_bytes: int = 0
    """Of all families: on the card at a time (two of them with a stream), besides ``unmatched_bytes``."""
    unmatched_bytes: int = 0
    """What block-level offloading keeps on the card all through the component's forward: everything outside the blocks;
    where the model names parts that move by themselves, of those the largest."""
    largest_leaf_bytes: int = 0
    """The most that one module holds directly: what leaf-level and sequential offloading bring at a time."""
    fp8_cast_bytes: int | None = None
    """After layerwise casting of weights to fp8 with the model's real skip patterns. None (also in the next two):
    it is quantised already."""
    int8_bytes: int | None = None
    """Loaded by bitsandbytes in 8 bits: only ``nn.Linear`` is converted, and not what the quantiser leaves alone; one
    fp32 scale per row included."""
    nf4_bytes: int | None = None
    """Loaded by bitsandbytes in 4 bits, without double quantisation: as ``int8_bytes``, with one fp32 absmax per 64
    weights and the 64 bytes of each weight's code table."""
    pinned_bytes: int | None = None
    """Page-locked copy of what is loaded, as offloading with a stream makes it: each tensor rounded up to a power of
    two, as PyTorch's host allocator does."""
    anonymous_bytes: int | None = None
    """Of ``loaded_bytes``, what is private host memory after loading (a cast, a copy); the rest is mapped from the
    checkpoint and counts nowhere. None: not known."""
    file_bytes: int | None = None
    """Bytes that a first load downloads for it: its weight files as published; 0 when they are on this machine.
    None: not known."""
    source: str
    """Where the figure comes from: safetensors headers, config, catalogue."""


class StageUse(Value):
    """What one stage needs besides weights."""

    stage: Stage
    component: str | None
    activation_bytes: int
    """Peak of everything allocated on the card that is not weights, while the stage runs."""
    calls: int
    seconds: float | None = None
    """Predicted for the card the measurement was timed on."""


class ModuleNode(Value):
    """A module that holds weights or groups those that do. Index in ``Trace.modules`` is its identity."""

    component: str
    path: str
    """Inside the component; empty for the component itself."""
    class_name: str
    parent: int
    """Index of the enclosing node, -1 for a component."""
    own_bytes: int
    """Weights and buffers held directly."""
    own_params: int
    """Elements of them as they are stored, buffers too."""
    params: int | None = None
    """Elements of the parameters alone; of a weight that is quantised already, as before packing. None: not known."""
    bias_params: int = 0
    """Of ``params``, those of the bias."""
    bias_bytes: int = 0
    """Of ``own_bytes``, those of the bias."""
    pinned_bytes: int = 0
    """Page-locked copy of what the module holds, each tensor rounded up to a power of two."""
    packed: bool = False
    """The weight is quantised already."""
    block_role: str | None = None
    """What block-level offloading makes of it: ``list`` (its children are blocks), ``part`` (moves when it runs, without
    the lists in it) or empty. None: not known; then lists right below the component are taken."""
    linear: bool = False
    """A weight that quantisers convert: ``nn.Linear``, unless it is among what they leave alone (what the model keeps
    in fp32; of transformers models also the output embeddings, tied weights and the last module)."""
    in_features: int = 0
    cast_ok: bool = True
    """Layerwise casting converts it: a Linear, Conv or Embedding that no skip pattern matches."""
    anonymous_bytes: int = 0
    """Of ``own_bytes``, what is private host memory after loading; the rest is mapped from the checkpoint."""


class Trace(Value):
    """The event trace of one call: rows in the order of time, as equally long columns.

    Between two rows nothing enters or leaves a module. ``peak_bytes[i]`` is the highest and ``live_bytes[i]`` the
    present amount of non-weight memory on the card in the interval that ends with row ``i``.
    """

    modules: tuple[ModuleNode, ...] = ()
    module: tuple[int, ...] = ()
    entered: tuple[bool, ...] = ()
    """True: row is the start of the module's forward; False: its end."""
    stage: tuple[Stage, ...] = ()
    live_bytes: tuple[int, ...] = ()
    peak_bytes: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    """Compute time of the interval on the timed card."""
    repeats: tuple[int, ...] = ()
    """How many times the interval stands in the real run (steps that were replayed, not executed)."""
    reserved_bytes: tuple[int, ...] = ()
    """What the allocator held from the driver at the end of the interval, weights included; empty when unknown."""
    arena_bytes: tuple[int, ...] = ()
    """How much of one address range, empty but for what is alive when the stage begins, everything but weights has taken
    up to the end of the interval; empty when unknown. A single large segment has to be so large to serve the stage."""
    launches: tuple[int, ...] = ()
    """Kernels that the host launched in the interval; empty when unknown. The host runs ahead by about a thousand."""


class Measurement(Value):
    """What ``measure_components`` returns."""

    pipeline_class: str
    model: str
    call: dict[str, object] = {}
    """The arguments the stages were measured at."""
    components: tuple[Component, ...] = ()
    stages: tuple[StageUse, ...] = ()
    weights_bytes: int = 0
    peak_allocated_bytes: int | None = None
    """Everything resident on an unlimited card."""
    peak_reserved_bytes: int | None = None
    load_host_bytes: int | None = None
    download_bytes: int | None = None
    """Bytes of weights that a first load fetches, those on this machine left out; None when not known."""
    download_seconds: float | None = None
    """How long that takes at 50 MB/s (an ordinary fast line); loading from disk comes on top."""
    timed_on: str | None = None
    trace: Trace | None = None
    offload_sequence: tuple[str, ...] = ()
    """The pipeline's own order of model offloading (``model_cpu_offload_seq``), components it has; empty: unknown."""
    sources: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
