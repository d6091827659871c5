"""What a module's weights take in each storage format, on the card, in host memory, and while they are used.

Sizes of the quantised formats are those of the libraries' own layouts: bitsandbytes keeps one fp32 scale per 64
elements of 4-bit codes and one per output row of int8; GGUF blocks carry their scales inside (34 bytes for 32 elements
of Q8_0, 210 for 256 of Q6_K, 176 of Q5_K, 144 of Q4_K); torchao int4 keeps a scale and a zero point per 128.
"""

from __future__ import annotations

from dataclasses import dataclass

from oomdoctor.planner.weights import Kind
from oomdoctor.techniques.effects import Format, Store
from oomdoctor.units import MIB

_ELEMENT: dict[Format, float] = {
    "fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + 4 / 128,
    "nf4": 0.5 + 4 / 64, "fp4": 0.5 + 4 / 64,
    "gguf-q8": 34 / 32, "gguf-q6": 210 / 256, "gguf-q5": 176 / 256, "gguf-q4": 144 / 256,
}  # fmt: skip
_ROW: dict[Format, float] = {"int8": 4.0, "fp8": 4.0}
_EFFORT: dict[Format, float] = {
    "int8": 5.0, "fp8": 5.0, "int4": 5.0, "nf4": 3.0, "fp4": 3.0,
    "gguf-q8": 4.0, "gguf-q6": 12.0, "gguf-q5": 12.0, "gguf-q4": 12.0,
}  # fmt: skip
"""Time of unpacking for a linear layer over that of the plain memory traffic it makes, from what FLUX.1-dev takes longer
per step on an H100 (torchao int8 and fp8 weight-only 70 ms, GGUF Q8_0 60 ms, nf4 a few tens) and Z-Image as GGUF Q4_K_M
on an RTX 5090 (160 ms). Layerwise casting (12 s -> 13 s for 50 steps) shows 1."""
_LAUNCHES: dict[Format, int] = {
    "int8": 4, "fp8": 4, "int4": 1, "nf4": 1, "fp4": 1, "gguf-q8": 2, "gguf-q6": 11, "gguf-q5": 23, "gguf-q4": 19,
}  # fmt: skip
"""Kernels that unpack one layer, counted on the virtual card (SD3.5's and FLUX.1's transformers). bitsandbytes' int8
launches three more."""
_CASTS = 4
"""The same for layerwise casting, there and back."""
_DTYPE = {"fp32": 4, "float32": 4, "torch.float32": 4}
_SCRATCH: dict[Format, int] = {"fp8": 8}
"""torchao scales fp8 in float32: the codes as float32 and their product stand side by side."""
PLAIN: tuple[Format, ...] = ("fp32", "bf16", "fp16")
_WHOLE_SEGMENT = 10 * MIB
_SEGMENT_STEP = 2 * MIB


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """A way of keeping weights; ``element`` None leaves them as the script's own loader does."""

    name: str = "native"
    element: float | None = None
    """Bytes per weight element, codes and per-group scales."""
    row: float = 0.0
    """Bytes of scales per output row of a linear layer."""
    linear_only: bool = False
    everything: bool = False
    """Of the linear layers those too that a model of transformers wants in float32."""
    rest: float | None = None
    """Bytes per element of what is not converted, where the pipeline as a whole changes its dtype; None: as loaded."""
    skips: bool = False
    """Layerwise casting: only Linear, Conv and Embedding modules that no skip pattern matches."""
    effort: float = 1.0
    """Time of unpacking over that of the plain memory traffic it makes."""
    launches: int = 0
    """Kernels for it, by converted module."""
    compute: int = 0
    """Bytes per element of the copy that exists while a module runs; 0: weights are used as stored."""
    scratch: int = 0
    """Bytes per element while that copy is made, before there is an output; 0: it is made at once."""
    mixed: bool = False
    """Linear layers multiply 8-bit inputs with the stored weights (LLM.int8): no copy of the weights, but an 8-bit
    input, a 32-bit product and a 16-bit result beside the output."""

    @property
    def casts(self) -> bool:
        """The unpacked copy stands in the place of the stored one (layerwise casting), not beside it."""
        return self.compute > 0 and not self.linear_only

    @property
    def plain(self) -> bool:
        """A dtype of ordinary tensors: activations follow it."""
        return self.name in PLAIN

    @property
    def activation_element(self) -> float | None:
        """Bytes per element that activations follow, where the ordinary dtype is changed; None: as measured."""
        return self.element if self.plain else self.rest

    def converts(self, kind: Kind) -> bool:
        if self.element is None:
            return False
        if self.linear_only:
            return kind.linear or (self.everything and kind.kept)
        return kind.castable if self.skips else True


NATIVE = WeightFormat()


def weight_format(store: Store, whole: Store | None = None) -> WeightFormat:
    """The layout that an effect asks for; ``whole`` is what the pipeline as a whole is stored in besides."""
    return WeightFormat(
        name=store.format,
        rest=_ELEMENT[whole.format] if whole is not None and whole.format in PLAIN else None,
        element=_ELEMENT[store.format],
        row=_ROW.get(store.format, 0.0) if store.linear_only else 0.0,
        effort=_EFFORT.get(store.format, 1.0) if store.linear_only else 1.0,
        launches=_LAUNCHES.get(store.format, 0) if store.linear_only else _CASTS if store.compute_dtype else 0,
        linear_only=store.linear_only,
        everything=store.linear_only and not store.on_card,
        skips=store.respects_skip_patterns,
        compute=0 if store.compute_dtype is None else _DTYPE.get(store.compute_dtype, 2),
        scratch=_SCRATCH.get(store.format, 0) if store.linear_only and store.compute_dtype else 0,
        mixed=store.format == "int8" and store.linear_only and store.at_load and store.on_card,
    )


def tensors(kind: Kind, fmt: WeightFormat) -> tuple[int, ...]:
    """Bytes of the module's weight (scales included) and of its bias, as kept between uses."""
    matrix = kind.matrix_params
    itemsize = kind.itemsize if fmt.rest is None else min(fmt.rest, kind.itemsize)
    bias = round((kind.params - matrix) * itemsize)
    weight = kind.own_bytes - bias if fmt.rest is None else round(matrix * itemsize)
    if fmt.converts(kind):
        assert fmt.element is not None
        rows = matrix // kind.in_features if (kind.linear or kind.kept) and kind.in_features else 0
        weight = round(matrix * fmt.element) + round(rows * fmt.row)
        if not fmt.linear_only:
            bias = round((kind.params - matrix) * fmt.element)
    return (weight, bias) if bias else (weight,)


def stored_bytes(kind: Kind, fmt: WeightFormat) -> int:
    """Bytes of one module's weights as kept between uses."""
    return sum(tensors(kind, fmt))


def segment_bytes(kind: Kind, fmt: WeightFormat) -> int:
    """What PyTorch's allocator reserves for them: a tensor of 10 MiB or more has a segment of its own, in 2 MiB steps."""
    return sum(t if t < _WHOLE_SEGMENT else -(-t // _SEGMENT_STEP) * _SEGMENT_STEP for t in tensors(kind, fmt))


def used_extra(kind: Kind, fmt: WeightFormat) -> int:
    """Bytes on the card beyond the stored ones while the module's forward runs."""
    if not fmt.compute or fmt.mixed or not fmt.converts(kind):
        return 0
    if fmt.casts:
        return max(0, kind.params * fmt.compute - stored_bytes(kind, fmt))
    return kind.matrix_params * fmt.compute


def mixed_extra(kind: Kind, fmt: WeightFormat, made: int) -> int:
    """Bytes beside the input while an 8-bit product is made whose output has ``made`` bytes: the input in 16 and in 8
    bits until the product stands, then the product (32 bits), its 16-bit form and the output."""
    if not fmt.mixed or not fmt.converts(kind) or kind.in_features <= 0 or made <= 0:
        return 0
    out = kind.matrix_params // kind.in_features
    rows = made / (kind.itemsize * max(1, out))
    return round(rows * (2 * kind.in_features + max(kind.in_features + 4 * out, (4 + 2 + kind.itemsize) * out)))


def moving_extra(kind: Kind, fmt: WeightFormat) -> int:
    """Bytes beyond the stored ones at the moment the weights are converted for use: a cast has both copies alive, and
    what scales them may work in float32."""
    if not fmt.converts(kind):
        return 0
    return kind.params * fmt.compute if fmt.casts else kind.matrix_params * fmt.scratch


def touched_bytes(kind: Kind, fmt: WeightFormat) -> int:
    """Traffic in the card's memory that one use adds: reading codes, writing the copy, and the way back of a cast."""
    if not fmt.compute or not fmt.converts(kind):
        return 0
    if fmt.casts:
        return 2 * (stored_bytes(kind, fmt) + kind.params * fmt.compute)
    return stored_bytes(kind, fmt) + kind.matrix_params * fmt.compute


def pinned_bytes(kind: Kind, fmt: WeightFormat) -> int:
    """Page-locked host copy, each tensor rounded up to a power of two as PyTorch's host allocator does."""
    return sum(1 << (t - 1).bit_length() for t in tensors(kind, fmt) if t > 0)


def row_bytes(kind: Kind, fmt: WeightFormat) -> int:
    """Scales of the output rows of a linear layer."""
    if not fmt.row or not fmt.converts(kind) or kind.in_features <= 0:
        return 0
    return round(kind.matrix_params // kind.in_features * fmt.row)


def scale_bytes(kind: Kind, fmt: WeightFormat) -> int:
    """Of a 4-bit weight of bitsandbytes, the scales of its groups: a tensor beside the codes."""
    return kind.matrix_params * 4 // 64 if fmt.name in ("nf4", "fp4") and fmt.converts(kind) else 0


class Sizes:
    """One format's figures for every kind of a trace, by kind number."""

    def __init__(self, kinds: list[Kind], fmt: WeightFormat) -> None:
        self.format = fmt
        self.stored = [stored_bytes(k, fmt) for k in kinds]
        self.segment = [segment_bytes(k, fmt) for k in kinds]
        self.used = [used_extra(k, fmt) for k in kinds]
        self.moving = [moving_extra(k, fmt) for k in kinds]
        self.converted = [stored_bytes(k, fmt) if fmt.converts(k) else 0 for k in kinds]
        self.fetched = [stored_bytes(k, fmt) - scale_bytes(k, fmt) for k in kinds]
        """What a copy stream brings of weights that were made on the card: their scales stay there."""
        self.codes = [s - row_bytes(k, fmt) for s, k in zip(self.fetched, kinds, strict=True)]
        self.scales = [scale_bytes(k, fmt) for k in kinds]
        self.touched = [touched_bytes(k, fmt) for k in kinds]
        self.pinned = [pinned_bytes(k, fmt) for k in kinds]
