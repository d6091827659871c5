"""Watch modules run: who is running, for reports and the trace; and replay denoiser calls that repeat themselves."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu import tracker as _tracker
from oomdoctor.vgpu.cuda_api import Patches
from oomdoctor.vgpu.replay import Replays
from oomdoctor.vgpu.world import World


def watch_modules(patches: Patches, world: World, *, replay: bool) -> None:
    """Patch ``nn.Module.__call__`` and ``_apply`` for the length of a run."""
    tracker = world.tracker
    original_call = torch.nn.Module.__call__
    original_apply = torch.nn.Module._apply
    replays = Replays(world) if replay else None
    world.replays = replays

    def call(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        index = _tracker.node_of(self)
        if index is None:
            if tracker.component:
                return original_call(self, *args, **kwargs)
            tracker.name(type(self).__name__, self)
            index = _tracker.node_of(self)
            assert index is not None
        node = tracker.nodes[index]
        outer = tracker.component, tracker.path
        tracker.component, tracker.path = node.component, node.path
        gpu = world.gpu
        stage = node.stage
        if stage is not None and (stage != tracker.stage or node.component != outer[0]) and not outer[0]:
            tracker.enter_stage(stage, node.component, gpu)
        if tracker.recording:
            tracker.row(index, True, gpu)
        try:
            if replays is not None and not node.path and stage == _tracker.DENOISE and not torch.is_grad_enabled():
                return replays.call(self, original_call, args, kwargs)
            return original_call(self, *args, **kwargs)
        finally:
            if tracker.recording:
                tracker.row(index, False, gpu)
            tracker.component, tracker.path = outer

    def apply(self: torch.nn.Module, fn: Any, *args: Any, **kwargs: Any) -> Any:
        outer = tracker.component
        index = _tracker.node_of(self)
        if not outer and index is not None:
            component = tracker.nodes[index].component
            tracker.component = component
            if tracker.stage in (_tracker.LOAD, _tracker.PLACE, _tracker.UNKNOWN):
                tracker.enter_stage(_tracker.PLACE, component, world.gpu)
        try:
            return original_apply(self, fn, *args, **kwargs)
        finally:
            tracker.component = outer

    patches.set(torch.nn.Module, "__call__", call)
    patches.set(torch.nn.Module, "_apply", apply)
