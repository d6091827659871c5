"""Who is running: component, module path and stage; and the rows of the event trace that planning folds over.

Stages are sticky: what happens between two modules (a scheduler step, blending tiles) counts to the stage before it.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from oomdoctor.vgpu import weights
from oomdoctor.vgpu.host import ANONYMOUS

LOAD, PLACE, TEXT_ENCODE, IMAGE_ENCODE = "load", "place", "text_encode", "image_encode"
DENOISE, VAE_ENCODE, VAE_DECODE, POST, UNKNOWN = "denoise", "vae_encode", "vae_decode", "post", "unknown"


@dataclass
class Node:
    """A module of a named component."""

    component: str
    path: str
    class_name: str
    parent: int
    own_bytes: int = 0
    own_params: int = 0
    params: int = 0
    """Elements of the parameters, packed ones as they were; ``own_params`` counts what is stored, buffers too."""
    bias_params: int = 0
    """Of ``params``, those of the bias."""
    bias_bytes: int = 0
    pinned_bytes: int = 0
    packed: bool = False
    """The weight is quantised already."""
    block_role: str = ""
    """``list`` or ``part``: see :func:`oomdoctor.vgpu.weights.block_roles`."""
    linear: bool = False
    in_features: int = 0
    cast_ok: bool = True
    anonymous_bytes: int = 0
    """Of ``own_bytes``, what was private host memory when the node was named (mapped file pages are not)."""
    stage: str | None = None

    def give_way(self, component: str) -> None:
        """Its module has a new name and a node of its own under it: what ran under the old one counts there, too."""
        self.component = component
        self.own_bytes = self.own_params = self.params = self.pinned_bytes = self.anonymous_bytes = 0
        self.bias_params = self.bias_bytes = 0


_MARK = "_oomdoctor_node"


def node_of(module: Any) -> int | None:
    """Index of a module's node, None while it has no name."""
    return module.__dict__.get(_MARK)


@dataclass
class StagePeaks:
    """Peaks of one stretch of a run that belongs to one stage of one component."""

    stage: str
    component: str
    allocated: int = 0
    reserved: int = 0
    start: float = 0.0
    end: float = 0.0
    calls: int = 0


@dataclass
class Rows:
    """The event trace, column by column; see ``values.measurement.Trace`` for the meaning of each."""

    module: list[int] = field(default_factory=list)
    entered: list[bool] = field(default_factory=list)
    stage: list[str] = field(default_factory=list)
    live: list[int] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    repeats: list[int] = field(default_factory=list)
    reserved: list[int] = field(default_factory=list)
    arena: list[int] = field(default_factory=list)
    launches: list[int] = field(default_factory=list)


def stage_of(component: str, class_name: str, path: str) -> str | None:
    """The stage in which a module of ``component`` works, by the names that diffusers pipelines share.

    None when the component belongs to no stage by itself (a controlnet's caption projection, a safety checker).
    """
    if "vae" in component or component in ("vqgan", "movq", "image_decoder", "vocoder") or "Autoencoder" in class_name:
        first = path.split(".", 1)[0]
        if first.startswith("encoder") or first in ("quant_conv", "encode"):
            return VAE_ENCODE
        return VAE_DECODE
    if "image_encoder" in component or "Vision" in class_name or "siglip" in component.lower():
        return IMAGE_ENCODE
    if "text_encoder" in component or component in (
        "prior_text_encoder",
        "connectors",
        "vision_language_encoder",
        "pe",
    ):
        return TEXT_ENCODE
    if component == "safety_checker":
        return POST
    if any(
        word in component for word in ("transformer", "unet", "controlnet", "prior", "decoder", "adapter", "brushnet")
    ):
        return DENOISE
    if any(word in class_name for word in ("Transformer2D", "Transformer3D", "UNet", "ControlNet")):
        return DENOISE
    if any(word in class_name for word in ("T5", "CLIPText", "Llama", "Qwen", "Gemma", "Mistral", "TextModel")):
        return TEXT_ENCODE
    return None


_ALONE = (
    ("vae", ("Autoencoder", "VQModel")),
    ("controlnet", ("ControlNet", "Adapter")),
    ("unet", ("UNet",)),
    ("image_encoder", ("Vision", "Siglip", "Dinov2")),
    ("text_encoder", ("T5", "CLIPText", "Llama", "Qwen2", "Qwen3", "Gemma", "Mistral", "TextModel", "TextEncoder")),
    ("transformer", ("Transformer",)),
)
"""Words in a class name -> what a model that no pipeline holds is called, first match first."""


def component_alone(class_name: str) -> str:
    """The component that a model used by itself would be in a pipeline; its class where none is known."""
    return next((name for name, words in _ALONE if any(w in class_name for w in words)), class_name)


class Tracker:
    """The state of one run; also writes the trace when ``recording``."""

    def __init__(self, recording: bool = False) -> None:
        self.recording = recording
        self.stage = LOAD
        self.component = ""
        self.path = ""
        self.nodes: list[Node] = []
        self.rows = Rows()
        self.stages: list[StagePeaks] = []
        self.stage_allocated = 0
        self.stage_reserved = 0
        self.interval_peak = 0
        self.interval_start = 0.0
        self.interval_launches = 0
        self.oom_moment: dict[str, Any] | None = None
        self.made: dict[str, int] = {}
        """Height, width and (of videos) num_frames of what the decoder gave out, while recording."""
        self._loaded: list[weakref.ref[Any]] = []
        self.on_stage: Callable[[str, str], None] | None = None
        """Told of every stage that begins; for progress."""
        self.on_call: Callable[[str, int], None] | None = None
        """Told of every call of a component that begins, and its number in this stretch."""

    # ------------------------------------------------------------------ naming
    def came(self, module: Any) -> None:
        """A model was loaded; :meth:`name_loaded` names it if no pipeline does so before."""
        self._loaded.append(weakref.ref(module))

    def name_loaded(self) -> None:
        """Name the models that were loaded and that no pipeline has taken."""
        waiting, self._loaded = self._loaded, []
        for reference in waiting:
            module = reference()
            if module is not None and node_of(module) is None:
                self.name(component_alone(type(module).__name__), module)

    def name(self, component: str, module: Any) -> None:
        """Give ``module`` and all its children their place under ``component``. Naming twice changes nothing."""
        known = node_of(module)
        if known is not None and self.nodes[known].component == component:
            return
        casts, converts, roles = weights.casts(module), weights.converts(module), weights.block_roles(module)
        parents: dict[str, int] = {}
        # A tied weight counts once, at the last module that holds it: in encoders that is the one that is run.
        holder = {id(t): path for path, child in module.named_modules() for t in weights.own_tensors(child)}
        for path, child in module.named_modules():
            node = Node(component, path, type(child).__name__, parents.get(path.rpartition(".")[0], -1) if path else -1)
            mine = [t for t in weights.own_tensors(child) if holder[id(t)] == path]
            for tensor in mine:
                node.own_bytes += weights.nbytes(tensor)
                node.own_params += tensor.numel()
                node.pinned_bytes += weights.pinned_nbytes(tensor)
            for name, tensor in child._parameters.items():
                if tensor is not None and holder[id(tensor)] == path:
                    count = weights.elements(child, name)
                    node.params += count
                    node.packed = node.packed or weights.is_packed(tensor)
                    if name == "bias":
                        node.bias_params, node.bias_bytes = count, weights.nbytes(tensor)
            node.linear = converts(path, child)
            node.in_features = int(getattr(child, "in_features", 0) or 0)
            node.cast_ok = casts(path, child)
            node.block_role = roles.get(path, "")
            former = node_of(child)
            if former is not None:
                self.nodes[former].give_way(component)
            parents[path] = len(self.nodes)
            child.__dict__[_MARK] = len(self.nodes)
            node.stage = stage_of(component, type(module).__name__, path)
            self.nodes.append(node)
            for tensor in (plain for t in mine for plain in weights.held(t)):
                storage = getattr(tensor, "_storage_handle", None)
                if storage is not None:
                    if storage.kind == ANONYMOUS:
                        node.anonymous_bytes += tensor.numel() * tensor.element_size()
                    storage.mark_weights(component)

    # ------------------------------------------------------------------ stages
    def enter_stage(self, stage: str, component: str, gpu: Any) -> None:
        """Open a stretch when stage or component change; the same one goes on otherwise."""
        if self.stages and self.stages[-1].stage == stage and self.stages[-1].component == component:
            return
        self.close_stage(gpu)
        self.stage = stage
        self.stages.append(StagePeaks(stage, component, start=gpu.clock.now, end=gpu.clock.now))
        if self.on_stage is not None:
            self.on_stage(stage, component)
        if gpu.arena is not None:
            gpu.arena.settle()
        self.stage_allocated = gpu.allocator.allocated
        self.stage_reserved = gpu.allocator.reserved

    def called(self, component: str) -> None:
        """A component was called as a whole."""
        if self.stages:
            last = self.stages[-1]
            last.calls += 1
            if self.on_call is not None:
                self.on_call(component, last.calls)

    def close_stage(self, gpu: Any) -> None:
        if self.stages:
            last = self.stages[-1]
            last.allocated = max(last.allocated, self.stage_allocated)
            last.reserved = max(last.reserved, self.stage_reserved)
            last.end = gpu.clock.now

    # ------------------------------------------------------------------ rows
    def row(self, node: int, entered: bool, gpu: Any) -> None:
        """One row: what happened since the last one belongs to it."""
        rows = self.rows
        busy = gpu.clock.busy.get(0, 0.0)
        live = gpu.allocator.allocated - gpu.weights
        rows.module.append(node)
        rows.entered.append(entered)
        rows.stage.append(self.stage)
        rows.live.append(live)
        rows.peak.append(max(self.interval_peak, live))
        rows.seconds.append(busy - self.interval_start)
        rows.repeats.append(1)
        rows.reserved.append(gpu.allocator.reserved)
        rows.arena.append(gpu.arena.top if gpu.arena is not None else 0)
        rows.launches.append(gpu.clock.launches - self.interval_launches)
        self.interval_peak = live
        self.interval_start = busy
        self.interval_launches = gpu.clock.launches

    def decoded(self, result: Any) -> None:
        """The decoder of a VAE gave out pixels: the size of the picture, also where no call says it."""
        first = result[0] if isinstance(result, tuple) and result else result
        shape = tuple(getattr(first, "shape", ()))
        if len(shape) not in (4, 5):
            return
        side = math.isqrt(max(1, shape[1] // 3))  # some put a square of pixels into the channels of one
        self.made["height"], self.made["width"] = int(shape[-2]) * side, int(shape[-1]) * side
        if len(shape) == 5:
            self.made["num_frames"] = self.made.get("num_frames", 0) + int(shape[2])

    def out_of_memory(self, gpu: Any, nbytes: int) -> None:
        self.oom_moment = {
            "stage": self.stage,
            "component": self.component,
            "path": self.path,
            "requested_bytes": nbytes,
            "allocated_bytes": gpu.allocator.allocated,
            "reserved_bytes": gpu.allocator.reserved,
            "seconds": gpu.clock.now,
            "alive": alive(gpu.live),
        }


def alive(live: dict[tuple[str, str, str], int], most: int = 40) -> list[dict[str, Any]]:
    """The largest entries of ``Gpu.live``, and the rest of each kind and component as one."""
    ordered = sorted(live.items(), key=lambda item: -item[1])
    out = [{"kind": k, "component": c, "path": p, "bytes": n} for (k, c, p), n in ordered[:most]]
    rest: dict[tuple[str, str], int] = {}
    for (kind, component, _), n in ordered[most:]:
        rest[kind, component] = rest.get((kind, component), 0) + n
    return out + [{"kind": k, "component": c, "path": "...", "bytes": n} for (k, c), n in rest.items()]
