"""Streams and events of the virtual card, in the shape of ``torch.cuda.Stream`` and ``torch.cuda.Event``."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu import world as _world

POOL = 32
"""Streams per priority that PyTorch ever makes on a card; the next one asked for is the first again."""
PRIORITIES = 4


class Stream:
    """A queue of work. Stream 0 is the default one. ``with stream:`` makes it current, as in torch."""

    def __init__(self, device: Any = None, priority: int = 0, *, stream_id: int | None = None, **_: Any) -> None:
        self.device = (
            torch.device("cuda", _world.current().current_gpu) if device is None else _world.normal_device(device)
        )
        self.priority = priority
        self.stream_id = self._from_pool() if stream_id is None else stream_id
        self._outer: list[int] = []

    @property
    def _gpu(self) -> Any:
        return _world.current().gpus[self.device.index or 0]

    def _from_pool(self) -> int:
        level = min(max(-self.priority, 0), PRIORITIES - 1)
        taken = self._gpu.streams_taken
        number = taken.get(level, 0)
        taken[level] = number + 1
        return 1 + level * POOL + number % POOL

    @property
    def device_index(self) -> int:
        return self.device.index or 0

    @property
    def cuda_stream(self) -> int:
        return self.stream_id

    def __enter__(self) -> Stream:
        self._outer.append(self._gpu.stream)
        self._gpu.stream = self.stream_id
        return self

    def __exit__(self, *exc: object) -> None:
        self._gpu.stream = self._outer.pop()

    def synchronize(self) -> None:
        self._gpu.clock.synchronize(self.stream_id)

    def wait_stream(self, other: Stream) -> None:
        clock = self._gpu.clock
        clock.wait(self.stream_id, clock.record(other.stream_id))

    def wait_event(self, event: Event) -> None:
        if event.time is not None:
            self._gpu.clock.wait(self.stream_id, event.time)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def is_capturing(self) -> bool:
        """No CUDA graph is ever recorded."""
        return False

    def query(self) -> bool:
        return bool(self._gpu.clock.done(self._gpu.clock.record(self.stream_id)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.stream_id, self.device) == (other.stream_id, other.device)

    def __hash__(self) -> int:
        return hash((self.stream_id, self.device))

    def __repr__(self) -> str:
        return f"<torch.cuda.Stream device={self.device} cuda_stream={hex(self.stream_id)}>"


class Event:
    """A moment on a stream."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.time: float | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.time = _gpu_of(stream).clock.record((stream or current_stream()).stream_id)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or current_stream()).wait_event(self)

    def synchronize(self) -> None:
        clock = _world.current().gpu.clock
        if self.time is not None:
            clock.host = max(clock.host, self.time)

    def query(self) -> bool:
        return self.time is None or bool(_world.current().gpu.clock.done(self.time))

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds between two recorded events."""
        return ((end.time or 0.0) - (self.time or 0.0)) * 1e3


class StreamContext:
    """``torch.cuda.stream(s)``; None changes nothing."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> StreamContext:
        if self.stream is not None:
            self.stream.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.stream is not None:
            self.stream.__exit__(*exc)


def _gpu_of(stream: Stream | None) -> Any:
    return _world.current().gpus[stream.device_index] if stream is not None else _world.current().gpu


def _index(device: Any) -> int:
    if device is None:
        return _world.current().current_gpu
    return _world.normal_device(device).index or 0


def current_stream(device: Any = None) -> Stream:
    index = _index(device)
    return Stream(torch.device("cuda", index), stream_id=_world.current().gpus[index].stream)


def default_stream(device: Any = None) -> Stream:
    return Stream(torch.device("cuda", _index(device)), stream_id=0)
