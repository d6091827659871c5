"""What a user may demand of every strategy that is shown."""

from __future__ import annotations

from typing import Literal

from oomdoctor.values import Quality
from oomdoctor.values.base import Value

Prefer = Literal["quality", "speed", "memory", "balanced"]


class Rules(Value):
    """Hard limits; a strategy that breaks one is not shown, however well it fits."""

    no_quantisation: bool = False
    """No quantiser. Layerwise casting to fp8 is storage, not a quantiser, and stays allowed."""
    no_new_packages: bool = False
    """Only what is installed already. A package whose presence is not known counts as new."""
    max_slowdown: float | None = None
    """At most so many times the seconds of everything resident on the same card."""
    keep_batch: bool = False
    """All pictures of a call are made together: no splitting of the batch."""
    worst_quality: Quality = Quality.NOTICEABLE
    without: tuple[str, ...] = ()
    """Techniques that are not wanted, by name or tag."""
