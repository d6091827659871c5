"""Time on a card: streams that run beside the host, as the CUDA model has it.

The host launches work and runs ahead; a stream starts a piece when its predecessor on the stream and whatever it waits
for are done. Only relations are simulated (start, end), no contention between streams for the same execution units:
overlap of copies and compute is therefore the best case, which is what a copy engine gives.
"""

from __future__ import annotations

LAUNCH_SECONDS = 6e-6
"""Host time per launched operation: Python, dispatcher and driver. Eager PyTorch takes 5-10 us per op on desktop CPUs."""


class Clock:
    """Host time and the end of the last work of every stream, in seconds since the start."""

    def __init__(self) -> None:
        self.host = 0.0
        self.streams: dict[int, float] = {0: 0.0}
        self.busy: dict[int, float] = {0: 0.0}
        """Seconds of work per stream; to split a run into compute and transfers."""

    def launch(self, stream: int, seconds: float) -> float:
        """Queue ``seconds`` of work; returns when it ends."""
        self.host += LAUNCH_SECONDS
        last = self.streams.get(stream, 0.0)
        end = (last if last > self.host else self.host) + seconds
        self.streams[stream] = end
        self.busy[stream] = self.busy.get(stream, 0.0) + seconds
        return end

    def synchronize(self, stream: int | None = None) -> None:
        """The host waits for one stream, or for all."""
        end = max(self.streams.values()) if stream is None else self.streams.get(stream, 0.0)
        self.host = max(self.host, end)

    def wait(self, stream: int, until: float) -> None:
        """Later work of ``stream`` starts no earlier than ``until``."""
        self.streams[stream] = max(self.streams.get(stream, 0.0), until)

    def skip(self, seconds: float) -> None:
        """Time passes that was not simulated (replayed steps)."""
        self.synchronize()
        self.host += seconds
        for stream in self.streams:
            self.streams[stream] += seconds

    # The allocator asks these two about blocks that a second stream uses (record_stream).
    def record(self, stream: int) -> float:
        return self.streams.get(stream, 0.0)

    def done(self, token: float) -> bool:
        return self.host >= token

    @property
    def now(self) -> float:
        """End of everything that was launched so far."""
        return max(self.host, max(self.streams.values()))
