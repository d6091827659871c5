"""What a technique does to memory and time, as data: the planner folds these over the trace of one run.

An effect says *what is where, in which format, and how the work is cut*; it never says how many bytes that saves.
``component`` is a pipeline attribute (``transformer``, ``vae``); ``"*"`` stands for every component that no other
effect of the same kind names. Sizes of pictures are in pixels, of batches in images, of memory in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from oomdoctor.values import Stage

Mode = Literal["resident", "component", "block", "leaf", "sequential"]
Host = Literal["pageable", "pinned", "pinned_on_demand", "mapped", "disk"]
Format = Literal[
    "fp32", "bf16", "fp16", "fp8", "int8", "int4", "nf4", "fp4", "gguf-q8", "gguf-q6", "gguf-q5", "gguf-q4"
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the weights of a component wait, and in which portions they come to the card."""

    component: str
    mode: Mode
    """``resident``: on the card all the time; ``component``: while the component runs (and until another one does);
    ``block``: ``blocks`` entries of a ModuleList at a time, everything outside the lists all through the forward;
    ``leaf`` / ``sequential``: one module that holds weights at a time."""
    blocks: int = 1
    stream: bool = False
    """Copies run on their own stream, and the next portion is fetched while this one computes."""
    record_stream: bool = False
    """No waiting before a portion is freed: its memory may linger until the stream has passed."""
    host: Host = "pageable"
    """``pinned``: a page-locked copy of all weights is kept; ``pinned_on_demand``: pinned for each transfer."""
    writes_back: bool = True
    """Leaving the card copies the weights back over the bus; False where the host copy is kept."""
    direct: bool = False
    """``resident`` from the start: loading sends each weight to the card as it reads it."""
    after_stage: Stage | None = None
    """``resident`` only once this stage is over: until then the component waits on the host."""


@dataclass(frozen=True, slots=True)
class Store:
    """In which format the weights of a component are kept."""

    component: str
    format: Format
    linear_only: bool = False
    """Only the weights of ``nn.Linear`` are converted."""
    respects_skip_patterns: bool = False
    """Modules that the model excludes from layerwise casting keep their dtype."""
    compute_dtype: str | None = None
    """Weights are converted to this for each module's forward; None: they are used as stored."""
    at_load: bool = True
    """Converted while loading, so the full-size copy is never complete in memory; False: afterwards, in place."""
    on_card: bool = True
    """Converting while loading happens on the card; False: on the host, and the card sees only what is sent there."""


@dataclass(frozen=True, slots=True)
class TileVae:
    """The VAE works on overlapping tiles. ``sample_size`` pixels is the side of a tile; None: the class default."""

    sample_size: int | None
    overlap: float = 0.25
    """Share of a tile that overlaps its neighbour."""


@dataclass(frozen=True, slots=True)
class SliceVae:
    """The VAE works on one image of the batch at a time."""


@dataclass(frozen=True, slots=True)
class FrameVae:
    """A video VAE decodes ``frames`` frames at a time; None: as many as the class does by itself."""

    frames: int | None = None


@dataclass(frozen=True, slots=True)
class SplitBatch:
    """The call is repeated with at most ``n`` images at a time; the pictures are joined on the host."""

    n: int


@dataclass(frozen=True, slots=True)
class Release:
    """The component is dropped for good once ``after_stage`` is over."""

    component: str
    after_stage: Stage


@dataclass(frozen=True, slots=True)
class Attention:
    """Which attention kernel runs: ``native``, ``flash``, ``efficient``, ``math``, ``sage``, ``xformers``, ``sliced``.

    ``sliced`` computes one head (or ``slice_size`` heads) at a time.
    """

    kernel: str
    slice_size: int | None = None


@dataclass(frozen=True, slots=True)
class ChunkFeedForward:
    """Feed-forward layers work on ``chunks`` portions of the sequence, one after the other."""

    chunks: int


@dataclass(frozen=True, slots=True)
class AllocatorSetting:
    """An entry of ``PYTORCH_CUDA_ALLOC_CONF``, e.g. ``expandable_segments`` = ``True``."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class SpeedFactor:
    """Compute time of a stage is multiplied by ``factor``, between ``low`` and ``high`` on what was published.

    ``first_call_seconds`` comes on top once (compilation, autotuning).
    """

    factor: float
    stage: Stage = Stage.DENOISE
    low: float | None = None
    high: float | None = None
    first_call_seconds: float = 0.0
    source: str = ""


@dataclass(frozen=True, slots=True)
class ExtraMemory:
    """Keeps more on the card: ``activations`` times the output of the denoiser's blocks, or a fixed ``bytes``."""

    component: str
    activations: float = 0.0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class MultiGpu:
    """Work or weights are spread over ``count`` cards."""

    count: int
    kind: Literal["components", "layers", "context", "tensor"]


@dataclass(frozen=True, slots=True)
class LoadOnce:
    """Loading keeps at most one copy of the weights in host memory (shard by shard, mapped files)."""


Effect = (
    Place | Store | TileVae | SliceVae | FrameVae | SplitBatch | Release | Attention | ChunkFeedForward
    | AllocatorSetting | SpeedFactor | ExtraMemory | MultiGpu | LoadOnce
)  # fmt: skip
