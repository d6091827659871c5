"""Which tensor a request is: well-known weights by their exact size, attention scores by their square."""

from __future__ import annotations

import math
from dataclasses import dataclass

from oomdoctor.units import GIB, MIB, human
from oomdoctor.values import Stage

_ROUND = 2 * MIB
_SMALL = 10 * MIB


@dataclass(frozen=True)
class Known:
    """A weight that many models share. ``elements`` is the product of its shape."""

    what: str
    elements: int
    stage: Stage
    component: str


_T5, _CLIP, _FLUX, _WAN, _SDXL = "T5-XXL", "CLIP ViT-L", "FLUX.1", "Wan 14B", "SDXL"
KNOWN: tuple[Known, ...] = (
    Known(f"a feed-forward weight of {_T5}", 10240 * 4096, Stage.TEXT_ENCODE, "text_encoder"),
    Known(f"an attention weight of {_T5}", 4096 * 4096, Stage.TEXT_ENCODE, "text_encoder"),
    Known(f"the token embedding of {_T5}", 32128 * 4096, Stage.TEXT_ENCODE, "text_encoder"),
    Known("the token embedding of UMT5-XXL", 256384 * 4096, Stage.TEXT_ENCODE, "text_encoder"),
    Known(f"the token embedding of {_CLIP}", 49408 * 768, Stage.TEXT_ENCODE, "text_encoder"),
    Known("the token embedding of OpenCLIP bigG", 49408 * 1280, Stage.TEXT_ENCODE, "text_encoder_2"),
    Known(f"a feed-forward weight of {_FLUX}", 12288 * 3072, Stage.DENOISE, "transformer"),
    Known(f"an output weight of a single block of {_FLUX}", 15360 * 3072, Stage.DENOISE, "transformer"),
    Known(f"a modulation weight of {_FLUX}", 18432 * 3072, Stage.DENOISE, "transformer"),
    Known(f"a feed-forward weight of {_WAN}", 13824 * 5120, Stage.DENOISE, "transformer"),
    Known(f"an attention weight of {_WAN}", 5120 * 5120, Stage.DENOISE, "transformer"),
    Known(f"a feed-forward weight of {_SDXL}", 10240 * 1280, Stage.DENOISE, "unet"),
)
_DTYPES = ((2, "16 bit"), (4, "32 bit"))
_HEADS = (1, 8, 10, 16, 20, 24, 30, 32, 40, 48)
_BATCHES = (1, 2)


def as_requested(n: int) -> int:
    """``n`` bytes as the allocator's message prints it: large requests are rounded up to 2 MiB."""
    return n if n < _SMALL else -(-n // _ROUND) * _ROUND


@dataclass(frozen=True)
class Match:
    """A well-known tensor whose size is the request's."""

    known: Known
    dtype: str

    @property
    def text(self) -> str:
        return f"{self.known.what} ({self.dtype})"


def weight_matches(requested: int) -> list[Match]:
    """The well-known weights of exactly that size (within the two digits that are printed)."""
    return [
        Match(known, dtype)
        for known in KNOWN
        for width, dtype in _DTYPES
        if abs(requested - as_requested(known.elements * width)) <= _tolerance(requested)
        or requested == known.elements * width
    ]


def scores_guess(requested: int, tokens: int | None = None) -> str | None:
    """Says that the request is the square of a picture's tokens times heads, when it is; else None.

    With ``tokens`` known only that number is tried. Without, only very large requests are, where chance hits are rare.
    """
    if requested < GIB:
        return None
    for batch in _BATCHES:
        for heads in _HEADS:
            for width, dtype in _DTYPES:
                count = math.sqrt(requested / (batch * heads * width))
                if tokens is not None:
                    if abs(count - tokens) / tokens < 0.003:
                        return _scores(requested, tokens, heads * batch, dtype)
                elif heads == 8 and _is_square_picture(count, requested):
                    return _scores(requested, round(count), heads * batch, dtype)
    return None


def _is_square_picture(tokens: float, requested: int) -> bool:
    side = math.sqrt(tokens)
    whole = round(side)
    return whole % 32 == 0 and whole >= 64 and abs(side - whole) < 1e-4 * side and requested >= 4 * GIB


def _scores(requested: int, tokens: int, heads: int, dtype: str) -> str:
    return (
        f"{human(requested)} is what attention scores of {tokens} x {tokens} tokens and {heads} heads take in {dtype}"
    )


def _tolerance(requested: int) -> int:
    return 5 * GIB // 1000 if requested >= GIB else 6 * MIB // 1000
