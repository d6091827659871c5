"""Start and end a virtual run in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from oomdoctor.vgpu import cuda_api, modes, rules, shapes
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.autocast import patch_autocast
from oomdoctor.vgpu.bare_numbers import patch_bare_numbers
from oomdoctor.vgpu.card import VirtualCard
from oomdoctor.vgpu.modules import watch_modules
from oomdoctor.vgpu.replay import Replays
from oomdoctor.vgpu.rules import legacy_types
from oomdoctor.vgpu.serialization import patch_load
from oomdoctor.vgpu.world import World


@contextlib.contextmanager
def virtual_gpu(
    cards: VirtualCard | list[VirtualCard],
    *,
    ram_bytes: int | None = None,
    host_base_bytes: int = 0,
    recording: bool = False,
    replay: bool = True,
) -> Iterator[World]:
    """Within the block this process has these cards and no others. Import diffusers inside, not before.

    ``ram_bytes`` limits anonymous + pinned host memory; ``recording`` writes the event trace; ``replay`` answers
    repeated denoiser calls from the two before them.
    """
    _refuse_real_cards()
    rules.load_all()
    world = renew(cards, ram_bytes=ram_bytes, host_base_bytes=host_base_bytes, recording=recording, replay=replay)
    patches = cuda_api.Patches()
    cuda_api.install(patches)
    watch_modules(patches)
    patch_load(patches)
    patch_autocast(patches)
    patch_bare_numbers(patches)
    _patch_arrays(patches)
    for name, kind in legacy_types.kinds().items():
        patches.set(torch.cuda, name, kind)
    undo_threads = modes.in_every_thread()
    try:
        with modes.DispatchMode(), modes.FunctionMode():
            yield world
    finally:
        undo_threads()
        patches.undo()
        for gpu in _world.current().gpus:
            gpu.finish()


def renew(
    cards: VirtualCard | list[VirtualCard],
    *,
    ram_bytes: int | None = None,
    host_base_bytes: int = 0,
    recording: bool = False,
    replay: bool = True,
) -> World:
    """Other cards and a fresh count for a process that is already virtual (a fork that starts its run)."""
    world = World(
        [cards] if isinstance(cards, VirtualCard) else list(cards),
        ram_bytes=ram_bytes,
        host_base_bytes=host_base_bytes,
        recording=recording,
    )
    if replay:
        world.replays = Replays(world)
    shapes.forget()
    _world.set_world(world)
    return world


def _patch_arrays(patches: cuda_api.Patches) -> None:
    try:
        from oomdoctor.vgpu.blank import wrap_from_numpy
    except ImportError:  # torch works without numpy
        return
    patches.set(torch, "from_numpy", wrap_from_numpy(torch.from_numpy))


def _refuse_real_cards() -> None:
    """A process that has opened a real card cannot forget it; the runner hides cards before torch starts."""
    if torch.version.cuda is not None and torch.cuda.is_initialized():
        raise RuntimeError("this process has already used a real GPU; run the virtual one in a process of its own")
