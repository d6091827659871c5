"""A stand-in trace for a measurement that has none: components, blocks and stages as far as their totals tell.

Sizes measured without a run (from configs or file headers) still give every placement its weights; activations are
then one figure per stage. The evaluator is the same, and the estimate says that it rests on totals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from oomdoctor.errors import InputError
from oomdoctor.values import Block, Component, Measurement, ModuleNode, Stage, StageUse, Trace

_MOST_LAYERS = 64


def outlined(measurement: Measurement) -> tuple[Trace, bool]:
    """The measurement's trace, or one made from its totals; True when it was made.

    Raises :class:`InputError` when there are neither components nor a trace.
    """
    if measurement.trace is not None and measurement.trace.module:
        return measurement.trace, False
    if not measurement.components:
        raise InputError("the measurement lists no components and has no trace; run `oom-doctor measure` on the script")
    draft = _Draft()
    uses = list(measurement.stages) or [
        StageUse(stage=_usual_stage(c.name), component=c.name, activation_bytes=0, calls=1)
        for c in measurement.components
    ]
    roots = {c.name: draft.component(c) for c in measurement.components}
    for use in uses:
        draft.run(use, roots)
    return draft.trace(), True


def _usual_stage(name: str) -> Stage:
    if name.startswith(("text_encoder", "prompt_enhancer", "pe")):
        return Stage.TEXT_ENCODE
    if name.startswith("image_encoder"):
        return Stage.IMAGE_ENCODE
    return Stage.VAE_DECODE if "vae" in name or name == "vocoder" else Stage.DENOISE


@dataclass
class _Draft:
    modules: list[ModuleNode] = field(default_factory=list)
    children: dict[int, list[int]] = field(default_factory=dict)
    rows: list[tuple[int, bool, Stage, int, int, float, int]] = field(default_factory=list)
    pending: int = 0

    def node(self, component: Component, path: str, parent: int, own: int, linear: bool) -> int:
        share = component.params / component.loaded_bytes if component.loaded_bytes else 0.0
        self.modules.append(
            ModuleNode(
                component=component.name,
                path=path,
                class_name="Linear" if linear else component.class_name,
                parent=parent,
                own_bytes=own,
                own_params=round(own * share),
                linear=linear,
            )
        )
        number = len(self.modules) - 1
        self.children[number] = []
        if parent >= 0:
            self.children[parent].append(number)
        return number

    def component(self, component: Component) -> int:
        root = self.node(component, "", -1, 0, False)
        in_blocks = sum(b.total_bytes for b in component.blocks)
        self._layers(component, "outside", root, max(0, component.loaded_bytes - in_blocks))
        for family in component.blocks:
            for i in range(family.count):
                block = self.node(component, f"{family.path}.{i}", root, 0, False)
                size = family.largest_bytes if i == 0 else _even(family.total_bytes - family.largest_bytes, family, i)
                self._layers(component, f"{family.path}.{i}", block, size)
        return root

    def _layers(self, component: Component, path: str, parent: int, size: int) -> None:
        if size <= 0:
            return
        leaf = component.largest_leaf_bytes or size
        count = min(_MOST_LAYERS, math.ceil(size / leaf))
        for i in range(count):
            share = size * (i + 1) // count - size * i // count
            self.node(component, f"{path}.layer{i}", parent, share, True)

    def run(self, use: StageUse, roots: dict[str, int]) -> None:
        if use.component is None or use.component not in roots:
            self.pending = max(self.pending, use.activation_bytes)
            return
        root = roots[use.component]
        order = self._order(root)
        seconds = (use.seconds or 0.0) / max(1, len(order)) / max(1, use.calls)
        for place, (node, entered) in enumerate(order):
            peak = self.pending if place == 0 else use.activation_bytes
            self.rows.append((node, entered, use.stage, 0, peak, seconds, max(1, use.calls)))
        self.pending = 0

    def _order(self, node: int) -> list[tuple[int, bool]]:
        inside = [event for child in self.children[node] for event in self._order(child)]
        return [(node, True), *inside, (node, False)]

    def trace(self) -> Trace:
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * 7
        return Trace(
            modules=tuple(self.modules),
            module=columns[0],
            entered=columns[1],
            stage=columns[2],
            live_bytes=columns[3],
            peak_bytes=columns[4],
            seconds=columns[5],
            repeats=columns[6],
        )


def _even(rest: int, family: Block, i: int) -> int:
    count = family.count - 1
    return rest * i // count - rest * (i - 1) // count if count > 0 else 0
