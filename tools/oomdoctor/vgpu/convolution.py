"""What cuDNN holds while a convolution runs: a table keyed by architecture, type, kernel, channels, size and batch.

The first row that fits a convolution says what is held. The rows that stand on a published figure name it; the default
of each type stands on the most. Cells between them are open: they get the default, which is never less than what the
neighbouring measured cells hold, so that an open cell is predicted high rather than low.

Figures: VAEs alone on an RTX 4090 (InvokeAI's table of working memory, decode and encode, 512 to 2048 pixels), FLUX.1-dev
with 1 to 16 pictures on an H100 (torchao's diffusers benchmark), Stable Diffusion on a GTX 1070 and a P100 (gperdrizet).
Open: batches on other cards than an H100 and at other sizes than 1024 pixels, Turing, Blackwell, channels-last inputs
(counted like the others, though nothing would need transposing), half-precision convolutions of Pascal at other sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from oomdoctor.vgpu.card import VirtualCard

HALF = "half"
SINGLE = "float32"
TILE = 4
"""Side of the output tile of the Winograd transform F(4x4, 3x3); its transformed tile has (4 + 2) squared elements."""


@dataclass(frozen=True)
class Convolution:
    """One convolution, as the table sees it. Sizes in elements unless the name says bytes."""

    capability: tuple[int, int]
    dtype: str
    dims: int
    kernel: int
    """The longest side of the kernel."""
    into: int
    """Input channels."""
    out: int
    """Output channels."""
    batch: int
    positions: int
    """Output positions of one picture: height x width (x frames)."""
    same_size: bool
    """Input and output have the same height and width (stride 1)."""
    input_bytes: int
    output_bytes: int
    weights: int
    """Elements of the weight: input x output channels x kernel."""
    itemsize: int

    @property
    def weights_prevail(self) -> bool:
        """More weights than input: many channels over few positions."""
        return self.weights * self.itemsize > self.input_bytes


Requests = tuple[int, ...]
Held = Callable[[Convolution], Requests]


def nothing(c: Convolution) -> Requests:
    return ()


def input_copy(c: Convolution) -> Requests:
    """The input in NHWC."""
    return (c.input_bytes,)


def both_copies(c: Convolution) -> Requests:
    """Input and output in NHWC, in one request."""
    return (c.input_bytes + c.output_bytes,)


def both_apart(c: Convolution) -> Requests:
    """Output and input in NDHWC, each requested by itself."""
    return (c.output_bytes, c.input_bytes)


def single_precision(c: Convolution) -> Requests:
    """Input, output and weights in float32."""
    return ((c.input_bytes + c.output_bytes) // c.itemsize * 4 + c.weights * 4,)


def winograd(c: Convolution) -> Requests:
    """Transformed weights in float32, transformed input and output in their own type (F(4x4, 3x3), not fused).

    Each 3x3 kernel and each 4x4 tile of output becomes 6x6 elements.
    """
    spread = (TILE + 2) ** 2
    tiles = c.batch * math.ceil(c.positions / TILE**2)
    return (spread * (4 * c.into * c.out + c.itemsize * tiles * (c.into + c.out)),)


@dataclass(frozen=True)
class Row:
    """Which convolutions hold what. A bound that is None fits all; ranges include both ends."""

    holds: Held
    source: str
    capability: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (99, 9))
    dtype: str | None = None
    dims: int | None = None
    kernel: int | None = None
    into: tuple[int, int] | None = None
    out: tuple[int, int] | None = None
    batch: int = 1
    """At least so many pictures."""
    positions: int = 0
    """At least so many output positions of a picture."""
    weights_prevail: bool | None = None
    same_size: bool | None = None

    def fits(self, c: Convolution) -> bool:
        return (
            self.capability[0] <= c.capability <= self.capability[1]
            and self.dtype in (None, c.dtype)
            and self.dims in (None, c.dims)
            and self.kernel in (None, c.kernel)
            and (self.into is None or self.into[0] <= c.into <= self.into[1])
            and (self.out is None or self.out[0] <= c.out <= self.out[1])
            and c.batch >= self.batch
            and c.positions >= self.positions
            and self.weights_prevail in (None, c.weights_prevail)
            and self.same_size in (None, c.same_size)
        )


PASCAL = ((6, 0), (6, 9))
BEFORE_TENSOR_CORES = ((0, 0), (6, 9))
HOPPER = ((9, 0), (9, 0))
MEGAPIXEL = 1 << 20

TABLE = (
    Row(nothing, "1x1 convolutions are matrix products", kernel=1),
    Row(
        winograd,
        "UNets of SD 1.4, SD 2.1, SDXL and SDXL Turbo, fp16 512 px, offloaded, GTX 1070 and P100: allocated within 1.3 %"
        " (without: 7 to 16 % low)",
        capability=PASCAL, dtype=HALF, dims=2, kernel=3, weights_prevail=True, same_size=True,
    ),
    Row(
        single_precision,
        "VAE decode of SD 1.4, SD 2.1 and SD 3.5, fp16 512 px, GTX 1070 and P100: allocated within 1 % (without: 14 to"
        " 56 % low)",
        capability=PASCAL, dtype=HALF, dims=2, kernel=3, same_size=True,
    ),
    Row(nothing, "SDXL's VAE in fp32, 512 px, GTX 1070 and P100: 0.1 %", capability=BEFORE_TENSOR_CORES),
    Row(
        input_copy,
        "FLUX.1-dev bf16 1024 px, H100, 4, 8 and 16 pictures: 33 MiB + 5 per picture above weights and activations",
        capability=HOPPER, dtype=HALF, dims=2, kernel=3, into=(256, 256), out=(256, 256), batch=4, positions=MEGAPIXEL,
    ),
    Row(
        input_copy,
        "the same with 16 pictures; with 4 and 8 both copies are held",
        capability=HOPPER, dtype=HALF, dims=2, kernel=3, into=(256, 256), out=(128, 128), batch=16, positions=MEGAPIXEL,
    ),
    Row(
        both_apart,
        "Qwen-Image's VAE fp16, RTX 4090, decode and encode 512 to 2048 px: allocated 0.1 % in 11 rows (without: 20 %"
        " low), reserved 0.9 to 2.7 % in 10 rows (as one request: up to 21 % high)",
        dtype=HALF, dims=3,
    ),
    Row(
        both_copies,
        "SDXL's VAE decode and the FLUX encoder fp16, RTX 4090, 512 to 2048 px: allocated 0.1 to 1.8 %, reserved 0.0 to"
        " 3 %; FLUX.1-dev bf16, H100, one picture: allocated -0.1 %",
        dtype=HALF,
    ),
    Row(
        both_copies,
        "FLUX encoder fp32, RTX 4090, 512 to 1536 px: allocated 2 to 3 % low (with a copy of the input only: 18 % low)",
        dtype=SINGLE, dims=2, into=(0, 128), out=(0, 128),
    ),
    Row(
        nothing,
        "SDXL's VAE decode fp32, RTX 4090: reserved 7 % high at 2048 px (with a copy of the input: 17 % high; at 1024 px"
        " without one 5 % low, with one 6 % high); allocated does not tell",
        dtype=SINGLE, dims=2, into=(512, 512), out=(256, 256), positions=MEGAPIXEL,
    ),
    Row(
        input_copy,
        "SDXL's VAE decode fp32, RTX 4090, 512 to 2048 px: allocated 0.1 %",
        dtype=SINGLE,
    ),
    Row(nothing, "other types: open"),
)  # fmt: skip


def row_for(c: Convolution) -> Row:
    """The first row of the table that fits."""
    return next(row for row in TABLE if row.fits(c))


def describe(inputs: list[torch.Tensor], outputs: list[Any], card: VirtualCard) -> Convolution:
    """The key of a convolution from its tensors (input, weight, ...) and the specs of its outputs."""
    x, weight = inputs[0], inputs[1]
    spec = outputs[0].spec
    half = x.dtype in (torch.float16, torch.bfloat16)
    return Convolution(
        capability=card.compute_capability,
        dtype=HALF if half else SINGLE if x.dtype == torch.float32 else str(x.dtype),
        dims=weight.dim() - 2,
        kernel=max(weight.shape[2:], default=1),
        into=x.shape[1],
        out=spec.shape[1],
        batch=x.shape[0],
        positions=math.prod(spec.shape[2:]),
        same_size=tuple(spec.shape[-2:]) == tuple(x.shape[-2:]),
        input_bytes=x.numel() * x.element_size(),
        output_bytes=spec.numel * spec.itemsize,
        weights=weight.numel(),
        itemsize=x.element_size(),
    )


def held(c: Convolution, card: VirtualCard, dtype: str) -> Requests:
    """What is requested while the convolution runs; a share that was measured on the card itself goes first."""
    share = (card.convolution_share or {}).get(dtype)
    if share is not None and c.kernel > 1:
        return (int(share * (c.input_bytes + c.output_bytes)) // 512 * 512,)
    return row_for(c).holds(c)
