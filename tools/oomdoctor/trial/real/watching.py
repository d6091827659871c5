"""Stages of a real run: what is loaded, encoded, denoised and decoded when, and the peak of each. Child side."""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from oomdoctor.vgpu.tracker import DENOISE, LOAD, PLACE, VAE_DECODE, VAE_ENCODE, stage_of

FEWEST_STEPS = 2
PICTURES_AT_MOST = 16


class Watch:
    """Patches diffusers as it is imported; peaks are torch's own, reset at the border of two stages."""

    def __init__(
        self, send: Callable[[dict[str, Any]], None], *, fewest_steps: bool, save_to: str | None, compare_to: list[str]
    ) -> None:
        self.send = send
        self.fewest_steps = fewest_steps
        self.save_to = save_to
        self.compare_to = list(compare_to)
        self.stages: list[dict[str, Any]] = []
        self.steps = 0
        self.outputs: list[dict[str, Any]] = []
        self._current: tuple[str, str] = (LOAD, "")
        self._since = time.perf_counter()

    # ------------------------------------------------------------------ stages
    def enter(self, stage: str, component: str) -> None:
        if (stage, component) != self._current:
            self.close_stage()
            self._current = (stage, component)
            self.send({"stage": stage, "component": component})

    def close_stage(self) -> None:
        """Write down the stretch that ends now, and start counting anew."""
        stage, component = self._current
        now = time.perf_counter()
        self.stages.append(
            {
                "stage": stage,
                "component": component or None,
                "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
                "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
                "seconds": now - self._since,
            }
        )
        self._since = now
        torch.cuda.reset_peak_memory_stats()

    def finish(self) -> list[dict[str, Any]]:
        """All stretches of the same stage and component as one, in order of their first."""
        merged: dict[tuple[str, str | None], dict[str, Any]] = {}
        for entry in self.stages:
            known = merged.setdefault((entry["stage"], entry["component"]), {**entry, "seconds": 0.0})
            known["seconds"] += entry["seconds"]
            for name in ("peak_allocated_bytes", "peak_reserved_bytes"):
                known[name] = max(known[name], entry[name])
        return list(merged.values())

    # ------------------------------------------------------------------ patches
    def install(self) -> None:
        """Before the script's first line. diffusers is imported here, as the script would do."""
        try:
            from diffusers.pipelines.pipeline_utils import DiffusionPipeline
        except ImportError:
            return  # a script without diffusers runs too; it then has one stage
        register = DiffusionPipeline.register_modules
        watch = self

        @functools.wraps(register)
        def register_modules(pipeline: Any, **components: Any) -> Any:
            result = register(pipeline, **components)
            for name, component in components.items():
                if isinstance(component, torch.nn.Module):
                    watch._watch_component(name, component)
            watch._watch_call(type(pipeline))
            return result

        DiffusionPipeline.register_modules = register_modules
        move = DiffusionPipeline.to

        @functools.wraps(move)
        def to(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            watch.enter(PLACE, "")
            return move(pipeline, *args, **kwargs)

        DiffusionPipeline.to = to

    def _watch_component(self, name: str, module: torch.nn.Module) -> None:
        if module.__dict__.get("_oomdoctor_watched"):
            return
        module.__dict__["_oomdoctor_watched"] = True
        stage = stage_of(name, type(module).__name__, "")
        if stage is None:
            return

        def before(_: Any, args: Any, kwargs: Any = None) -> None:
            self.enter(stage, name)
            if stage == DENOISE:
                self.steps += 1
                self.send({"step": self.steps, "component": name})

        module.register_forward_pre_hook(before)
        for method, its_stage in (("decode", VAE_DECODE), ("encode", VAE_ENCODE)):
            inner = getattr(module, method, None)
            if inner is not None and stage == VAE_DECODE:
                setattr(module, method, self._staged(inner, its_stage, name))

    def _staged(self, method: Any, stage: str, component: str) -> Any:
        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.enter(stage, component)
            return method(*args, **kwargs)

        return wrapped

    def _watch_call(self, cls: Any) -> None:
        """The call of a pipeline class: fewest steps for a probe; its output for the comparison."""
        if "__oomdoctor_call__" in cls.__dict__ or "__call__" not in cls.__dict__:
            return
        call = cls.__call__
        signature = inspect.signature(call)

        @functools.wraps(call)
        def wrapped(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            if self.fewest_steps and "num_inference_steps" in signature.parameters:
                bound = signature.bind(pipeline, *args, **kwargs)
                own = any(bound.arguments.get(k) is not None for k in ("timesteps", "sigmas"))
                if not own:
                    asked = bound.arguments.get("num_inference_steps", FEWEST_STEPS)
                    bound.arguments["num_inference_steps"] = min(int(asked), FEWEST_STEPS)
                    args, kwargs = bound.args[1:], bound.kwargs
            result = call(pipeline, *args, **kwargs)
            self._keep(result)
            return result

        cls.__call__ = wrapped
        cls.__oomdoctor_call__ = True

    def _keep(self, result: Any) -> None:
        """Pictures of a result: sizes always; the files themselves where the user wants to look."""
        for name in ("images", "frames"):
            pictures = getattr(result, name, None)
            if pictures is None:
                continue
            flat = list(_pictures(pictures))
            entry: dict[str, Any] = {"kind": name, "count": len(flat)}
            if flat and hasattr(flat[0], "size") and isinstance(flat[0].size, tuple):
                entry["size"] = list(flat[0].size)
            if self.save_to:
                os.makedirs(self.save_to, exist_ok=True)
                entry["files"] = []
                for picture in flat[:PICTURES_AT_MOST]:
                    if hasattr(picture, "save"):
                        file = os.path.join(self.save_to, f"{len(self.outputs)}-{len(entry['files'])}.png")
                        picture.save(file)
                        entry["files"].append(file)
            for picture in flat[:PICTURES_AT_MOST]:
                if self.compare_to and hasattr(picture, "save"):
                    entry.setdefault("differences", []).append(_difference(picture, self.compare_to.pop(0)))
            self.outputs.append(entry)


def _difference(picture: Any, file: str) -> dict[str, float] | None:
    """Largest and mean difference of two pictures in steps of 0..255; None when their sizes differ."""
    import numpy
    from PIL import Image

    with Image.open(file) as other:
        a, b = numpy.asarray(picture, dtype=numpy.int32), numpy.asarray(other, dtype=numpy.int32)
    if a.shape != b.shape:
        return None
    gap = numpy.abs(a - b)
    return {"max": float(gap.max()), "mean": float(gap.mean())}


def _pictures(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        for item in x:
            yield from _pictures(item)
    else:
        yield x
