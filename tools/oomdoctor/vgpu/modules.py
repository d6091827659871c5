"""Watch modules run: who is running, for reports and the trace; and replay denoiser calls that repeat themselves."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu import host_work
from oomdoctor.vgpu import tracker as _tracker
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.cuda_api import Patches


def watch_modules(patches: Patches) -> None:
    """Patch ``nn.Module.__call__`` and ``_apply`` for the length of a run."""
    original_call = torch.nn.Module.__call__
    original_apply = torch.nn.Module._apply

    def call(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        world = _world.current()
        tracker = world.tracker
        index = _tracker.node_of(self)
        if index is None:
            if tracker.component:
                return original_call(self, *args, **kwargs)
            tracker.name_loaded()
            if _tracker.node_of(self) is None:
                tracker.name(_tracker.component_alone(type(self).__name__), self)
            index = _tracker.node_of(self)
            assert index is not None
        node = tracker.nodes[index]
        outer = tracker.component, tracker.path
        tracker.component, tracker.path = node.component, node.path
        gpu = world.gpu
        gpu.clock.host += host_work.seconds(self)
        stage = node.stage
        if not outer[0]:
            if stage is not None:
                tracker.enter_stage(stage, node.component, gpu)
            tracker.called(node.component)
        timeline = gpu.timeline
        started = gpu.clock.now if timeline is not None else 0.0
        replayed = False
        if tracker.recording:
            tracker.row(index, True, gpu)
        try:
            if (
                world.replays is not None
                and not node.path
                and stage == _tracker.DENOISE
                and not torch.is_grad_enabled()
            ):
                before = world.replays.replayed
                result = world.replays.call(self, original_call, args, kwargs)
                replayed = world.replays.replayed > before
                return result
            result = original_call(self, *args, **kwargs)
            if tracker.recording and stage == _tracker.VAE_DECODE and node.path == "decoder":
                tracker.decoded(result)
            return result
        finally:
            if tracker.recording:
                tracker.row(index, False, gpu)
            if timeline is not None:
                if replayed:
                    timeline.repeat(started, gpu.clock.now)
                elif not outer[0] or is_block(node.path):
                    timeline.span(node.component, node.path, started, gpu.clock.now)
            tracker.component, tracker.path = outer

    def apply(self: torch.nn.Module, fn: Any, *args: Any, **kwargs: Any) -> Any:
        tracker = _world.current().tracker
        outer = tracker.component
        index = _tracker.node_of(self)
        if not outer and index is not None:
            component = tracker.nodes[index].component
            tracker.component = component
            if tracker.stage in (_tracker.LOAD, _tracker.PLACE, _tracker.UNKNOWN):
                tracker.enter_stage(_tracker.PLACE, component, _world.current().gpu)
        try:
            return original_apply(self, fn, *args, **kwargs)
        finally:
            tracker.component = outer

    patches.set(torch.nn.Module, "__call__", call)
    patches.set(torch.nn.Module, "_apply", apply)


def is_block(path: str) -> bool:
    """Whether a module is one of a list of equal ones that make up a component: ``transformer_blocks.12``."""
    name, _, number = path.rpartition(".")
    return number.isdigit() and name.count(".") <= 2 and not any(part.isdigit() for part in name.split("."))
