"""The base of every value that flows between the rooms: frozen, strict about field names, JSON both ways."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """A frozen value. Unknown is ``None``, never a guess; memory is ``int`` bytes; time is ``float`` seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Stage(str, Enum):
    """Where in the life of a pipeline something happens."""

    LOAD = "load"
    QUANTIZE = "quantize"
    PLACE = "place"
    TEXT_ENCODE = "text_encode"
    IMAGE_ENCODE = "image_encode"
    DENOISE = "denoise"
    VAE_ENCODE = "vae_encode"
    VAE_DECODE = "vae_decode"
    COMPILE = "compile"
    TRAINING = "training"
    POST = "post"
    UNKNOWN = "unknown"


class Quality(str, Enum):
    """What a technique does to the picture, from nothing to visible."""

    IDENTICAL = "bit-identical"
    EQUIVALENT = "numerically equivalent"
    SLIGHT = "slight"
    NOTICEABLE = "noticeable"

    @property
    def rank(self) -> int:
        """0 is best; for sorting."""
        return list(Quality).index(self)
