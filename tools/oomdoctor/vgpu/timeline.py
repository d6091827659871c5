"""What a picture of a run is drawn from: the card's memory over time, and who ran when.

Kept small whatever the run does: a sample is taken when the amount has moved by a step, and when there are too many
the step grows and the older ones are thinned. Lows and highs stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from oomdoctor.vgpu.gpu import Gpu

MOST_SAMPLES = 20_000
MOST_SPANS = 8000


class Sample(NamedTuple):
    """Bytes on the card at one moment of its clock."""

    seconds: float
    allocated: int
    reserved: int
    weights: int


class Span(NamedTuple):
    """One forward of a module: a whole component (depth 0) or one of its blocks (depth 1)."""

    component: str
    path: str
    start: float
    end: float


class Timeline:
    """Samples and spans of one card."""

    def __init__(self, total_bytes: int) -> None:
        self.step = max(1, total_bytes // 2048)
        self.samples: list[Sample] = []
        self.spans: list[Span] = []
        self._near = 0
        """Amount of the last sample."""
        self._high = Sample(0.0, 0, 0, 0)
        """The highest moment since the last sample."""
        self._call = (0.0, 0.0)

    def note(self, gpu: Gpu) -> None:
        """Called after every allocation and before every free."""
        allocated = gpu.allocator.allocated
        moved = allocated - self._near
        if allocated > self._high.allocated:
            self._high = Sample(gpu.clock.now, allocated, gpu.allocator.reserved, gpu.weights)
        if -self.step < moved < self.step:
            return
        if moved < 0 and self._high.allocated > self._near:
            self._add(self._high)
        self._add(Sample(gpu.clock.now, allocated, gpu.allocator.reserved, gpu.weights))

    def _add(self, sample: Sample) -> None:
        self.samples.append(sample)
        self._near = sample.allocated
        self._high = sample
        if len(self.samples) > MOST_SAMPLES:
            self.samples = thinned(self.samples, MOST_SAMPLES // 2)
            self.step *= 2

    def close(self, gpu: Gpu) -> None:
        """The last moment of the run."""
        if self._high.allocated > self._near:
            self._add(self._high)
        self._add(Sample(gpu.clock.now, gpu.allocator.allocated, gpu.allocator.reserved, gpu.weights))

    # ------------------------------------------------------------------ spans
    def span(self, component: str, path: str, start: float, end: float) -> None:
        if len(self.spans) < MOST_SPANS:
            self.spans.append(Span(component, path, start, end))
        if not path:
            self._call = (start, end)

    def repeat(self, start: float, end: float) -> None:
        """The last whole call happened again from ``start`` to ``end``, without having been executed."""
        first, last = self._call
        shift = start - first
        again = [s._replace(seconds=s.seconds + shift) for s in self.samples if first <= s.seconds <= last]
        for sample in again:
            self._add(sample)
        for span in [s for s in self.spans if first <= s.start and s.end <= last]:
            if len(self.spans) < MOST_SPANS:
                self.spans.append(span._replace(start=span.start + shift, end=span.end + shift))
        self._call = (start, end)


def thinned(samples: list[Sample], most: int) -> list[Sample]:
    """At most about ``most`` samples in the order of time: of each stretch its lowest and its highest."""
    if len(samples) <= most:
        return samples
    width = -(-2 * len(samples) // most)
    kept: list[Sample] = []
    for i in range(0, len(samples), width):
        stretch = samples[i : i + width]
        low, high = min(stretch, key=lambda s: s.allocated), max(stretch, key=lambda s: s.allocated)
        kept += sorted({low, high})
    return kept
