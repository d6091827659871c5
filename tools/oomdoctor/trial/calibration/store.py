"""Where calibrations are kept, and how they change a card."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from pydantic import ValidationError

from oomdoctor.values import Calibration, Card

PEAK_SHARE = 0.95
"""A measured rate above this share of the maker's peak means that the peak is another card's; it is then not used."""


def folder() -> Path:
    """``$XDG_CACHE_HOME/oom-doctor/calibrations``, or the platform's place for caches."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or str(Path.home() / ".cache")
    return Path(base) / "oom-doctor" / "calibrations"


def save(calibration: Calibration, where: Path | None = None) -> Path:
    """Write it under the card and the torch version; returns the file."""
    place = where or folder()
    place.mkdir(parents=True, exist_ok=True)
    file = place / f"{_name(calibration.label)}.{_name(calibration.torch)}.json"
    partial = file.with_suffix(".partial")
    partial.write_text(calibration.model_dump_json(indent=1))
    partial.replace(file)
    return file


def load(label: str, torch: str | None = None, where: Path | None = None) -> Calibration | None:
    """The calibration of a card: of this torch version where there is one, else the newest; None without any."""
    found = []
    for file in sorted((where or folder()).glob(f"{_name(label)}.*.json")):
        with contextlib.suppress(OSError, ValidationError):
            found.append(Calibration.model_validate_json(file.read_text()))
    same = [c for c in found if c.torch == torch]
    return max(same or found, key=lambda c: c.date, default=None)


def apply(card: Card, calibration: Calibration | None) -> Card:
    """The card with what was measured in the place of what was assumed."""
    if calibration is None:
        return card
    changes: dict[str, object] = {
        "pinned_bytes_per_second": calibration.h2d_pinned_bytes_per_second,
        "pageable_bytes_per_second": calibration.h2d_pageable_bytes_per_second,
        "convolution_share": calibration.convolution_share,
        "source": f"{card.source}; calibrated {calibration.date} with torch {calibration.torch}",
    }
    if calibration.context_bytes:
        changes["context_bytes"] = calibration.context_bytes
    half = calibration.matmul_flops.get("float16")
    if half and half <= card.fp16_flops * PEAK_SHARE:
        changes["matmul_efficiency"] = half / card.fp16_flops
    return card.model_copy(update=changes)


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower().replace("+", ".")).strip("-")
