"""What the allocators ask of the streams."""

from __future__ import annotations

from typing import Any, Protocol


class StreamClock(Protocol):
    """Tells when the work that was queued on a stream is over."""

    def record(self, stream: int) -> Any:
        """A token for everything queued on ``stream`` so far (``cudaEventRecord``)."""

    def done(self, token: Any) -> bool:
        """Whether that work is over (``cudaEventQuery``)."""
