"""The one world of a virtual run: the cards, the host, the tracker, and what was assumed on the way."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu.allocator import PinnedAllocator
from oomdoctor.vgpu.card import VirtualCard
from oomdoctor.vgpu.gpu import Gpu
from oomdoctor.vgpu.host import HostMemory
from oomdoctor.vgpu.tracker import Tracker

CPU = torch.device("cpu")
META = torch.device("meta")


def torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split("+")[0].split(".")[:2]
    return int(major), int(minor)


class OpsExhausted(BaseException):
    """More operations than one run may make. Not an ``Exception``: no handler of the script should go on after it."""


class World:
    """Everything a virtual run keeps count of."""

    def __init__(
        self,
        cards: list[VirtualCard],
        *,
        ram_bytes: int | None = None,
        host_base_bytes: int = 0,
        recording: bool = False,
    ) -> None:
        self.tracker = Tracker(recording)
        self.gpus = [Gpu(card, i, torch_version(), self.tracker) for i, card in enumerate(cards)]
        self.host = HostMemory(ram_bytes, host_base_bytes, PinnedAllocator(torch_version=torch_version()))
        self.current_gpu = 0
        self._ops = 0
        self.ops_limit: int | None = None
        """Operations after which the run is stopped."""
        self.replays: Any = None
        """The :class:`~oomdoctor.vgpu.replay.Replays` of this run, None when every step is executed."""
        self.assumptions: dict[str, None] = {}
        """Ordered set of sentences: every rule that stood in for a value nobody has."""
        for gpu in self.gpus:
            gpu.assume = self.assume

    @property
    def ops(self) -> int:
        """Operations so far. Raises :class:`OpsExhausted` when they pass the limit."""
        return self._ops

    @ops.setter
    def ops(self, value: int) -> None:
        self._ops = value
        if self.ops_limit is not None and value > self.ops_limit:
            raise OpsExhausted(f"stopped after {self.ops_limit:,} operations")

    @property
    def gpu(self) -> Gpu:
        return self.gpus[self.current_gpu]

    @property
    def now(self) -> float:
        """Seconds until everything that was launched on any card is done."""
        return max(gpu.clock.now for gpu in self.gpus)

    def meet(self) -> None:
        """One host serves all cards: what it waited for on one, it waited for on the others."""
        host = max(gpu.clock.host for gpu in self.gpus)
        for gpu in self.gpus:
            gpu.clock.host = host

    def settle(self) -> None:
        """The host waits for all cards."""
        for gpu in self.gpus:
            gpu.clock.synchronize()
        self.meet()

    def place(self, device: torch.device) -> Any:
        """Where a virtual tensor of ``device`` lives."""
        if device.type == "cpu":
            return self.host
        index = device.index or 0
        if index >= len(self.gpus):
            raise RuntimeError("CUDA error: invalid device ordinal")
        return self.gpus[index]

    def assume(self, sentence: str) -> None:
        self.assumptions.setdefault(sentence)


_world: World | None = None


def current() -> World:
    """The world of this process. Raises RuntimeError outside a virtual run."""
    if _world is None:
        raise RuntimeError("no virtual GPU is active in this process")
    return _world


def set_world(world: World | None) -> None:
    global _world
    _world = world


def normal_device(device: Any) -> torch.device:
    """``"cuda"``, ``0`` or a device -> a device with its index, as torch would resolve it now."""
    if isinstance(device, int):
        device = torch.device("cuda", device)
    elif not isinstance(device, torch.device):
        device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", current().current_gpu)
    if device.type == "cpu" and device.index is not None:
        return CPU
    return device
