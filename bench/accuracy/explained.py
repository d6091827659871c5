"""Why published rows are off by more than a few percent: by mechanism, or said to be open.

One entry per mechanism, with the rows it is about; an entry without figures or a source of its own is called open.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Mechanism:
    """What explains the rows whose id starts with one of ``rows`` and that belong to ``family`` (any if empty)."""

    rows: tuple[str, ...]
    family: str
    why: str
    metric: str = ""


MECHANISMS: tuple[Mechanism, ...] = (
    Mechanism(
        ("asomoza-004",), "sequential offload",
        "the published figure is below what decoding this picture alone takes in the same source's other rows: the driver "
        "was polled, and the decoding is over in a tenth of a second",
    ),
    Mechanism(
        ("asomoza-022", "asomoza-024", "asomoza-025"), "gguf",
        "a Q4_K_M file mixes types and its name tells only the prevailing one: 1.15 GiB short in each of the rows",
    ),
    Mechanism(
        ("asomoza",), "group offload",
        "with record_stream the peak is how far copies run ahead of compute, so it rests on predicted times of both",
    ),
    Mechanism(
        ("invoke-vae-04", "invoke-vae-06"), "vae alone",
        "fp32 at 2048 pixels: between 1024 and 2048 cuDNN changes its algorithm (published reserved does not grow with the"
        " area); open",
        metric="reserved",
    ),
)  # fmt: skip


def why(row: str, model: str, metric: str, families: Collection[str]) -> str:
    """The mechanism behind a large error of a row; empty where none is known."""
    for m in MECHANISMS:
        fits = row.startswith(m.rows) or model.startswith(m.rows)
        if fits and (not m.family or m.family in families) and m.metric in ("", metric):
            return m.why
    return ""
