"""Time on a card: streams that run beside the host, as the CUDA model has it.

The host launches work and runs ahead; a stream starts a piece when its predecessor on the stream and whatever it waits
for are done. Only relations are simulated (start, end), no contention between streams for the same execution units:
overlap of copies and compute is therefore the best case, which is what a copy engine gives.
"""

from __future__ import annotations

from collections import deque

LAUNCH_SECONDS = 6e-6
"""Host time per launched operation: Python, dispatcher and driver. Eager PyTorch takes 5-10 us per op on desktop CPUs."""

QUEUE_LAUNCHES = 1024
"""Launches that a stream holds before the next one makes the host wait for the oldest: how far the host can run ahead,
and with it the copies of ``record_stream``. Seen by users (NVIDIA's developer forum, topic 68937: about a thousand per
stream), not documented. Checked on published peaks: Z-Image by leaves with a stream, 11.5 GiB against 11.1 (bfloat16)
and 8.8 against 8.4 (GGUF); without a limit the host would be steps ahead and the peak would grow with every step."""


class Clock:
    """Host time and the end of the last work of every stream, in seconds since the start."""

    def __init__(self) -> None:
        self.host = 0.0
        self.streams: dict[int, float] = {0: 0.0}
        self.busy: dict[int, float] = {0: 0.0}
        """Seconds of work per stream; to split a run into compute and transfers."""
        self.launches = 0
        """Pieces of work launched so far, on all streams."""
        self._queues: dict[int, deque[float]] = {}
        """Ends of the launches that a stream has not finished, oldest first."""

    def launch(self, stream: int, seconds: float) -> float:
        """Queue ``seconds`` of work; returns when it ends."""
        self.launches += 1
        host = self.host + LAUNCH_SECONDS
        queue = self._queues.get(stream)
        if queue is None:
            queue = self._queues[stream] = deque()
        while queue and queue[0] <= host:
            queue.popleft()
        if len(queue) == QUEUE_LAUNCHES:
            host = queue.popleft()
        self.host = host
        last = self.streams.get(stream, 0.0)
        end = (last if last > host else host) + seconds
        self.streams[stream] = end
        queue.append(end)
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
        self._queues.clear()

    # The allocator asks these two about blocks that a second stream uses (record_stream).
    def record(self, stream: int) -> float:
        return self.streams.get(stream, 0.0)

    def done(self, token: float) -> bool:
        return self.host >= token

    @property
    def now(self) -> float:
        """End of everything that was launched so far."""
        return max(self.host, max(self.streams.values()))
