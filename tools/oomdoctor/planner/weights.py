"""The weights of a pipeline's components, sorted into kinds of equal modules and into blocks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from oomdoctor.techniques.facts import model_facts
from oomdoctor.values import Component, ModuleNode

_NUMBERED = re.compile(r"\.\d+\.")
_CASTABLE = ("Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")


class Kind(NamedTuple):
    """The weights of one module as far as storage formats care; equal modules share one kind."""

    own_bytes: int
    params: int
    linear: bool
    in_features: int
    castable: bool
    """Layerwise casting converts it: a Linear, Conv or Embedding that no skip pattern matches."""
    kept: bool = False
    """A linear layer of transformers that the model wants in float32: bitsandbytes leaves it, torchao converts it."""

    @property
    def matrix_params(self) -> int:
        """Elements of the weight matrix of a linear layer, the bias excluded."""
        if not (self.linear or self.kept) or self.in_features <= 0 or self.params % (self.in_features + 1):
            return self.params
        # A bias adds one element per output row, so the count divides by in_features + 1 only when there is one
        # (or when the rows happen to be a multiple of it, which real layers avoid).
        return self.params // (self.in_features + 1) * self.in_features

    @property
    def itemsize(self) -> float:
        return self.own_bytes / self.params if self.params else 1.0


@dataclass(slots=True)
class Weights:
    """The weights of one component, by kind."""

    component: Component
    kinds: Counter[int] = field(default_factory=Counter)
    blocks: list[Counter[int]] = field(default_factory=list)
    """Block number -> its kinds. Blocks are numbered through all families in order."""
    families: list[range] = field(default_factory=list)
    unmatched: Counter[int] = field(default_factory=Counter)
    order: list[int] = field(default_factory=list)
    """Kinds of all modules in the order of their names, in which loaders come to them."""
    remainder_bytes: int = 0
    """Bytes of the component that the trace's nodes do not account for; they follow the whole component."""

    @property
    def foreign(self) -> bool:
        """A model of transformers, not of diffusers."""
        return _foreign(self.component.class_name)


@lru_cache(maxsize=256)
def _foreign(class_name: str) -> bool:
    return model_facts(class_name) is None


class WeightIndex:
    """Modules by number: what kind each is, which block it belongs to; components by name: what they weigh."""

    def __init__(self, components: Sequence[Component], modules: Sequence[ModuleNode]) -> None:
        self.kinds: list[Kind] = []
        self.kind_of: list[int] = []
        """Module -> number of its kind, -1 when it holds no weights itself."""
        self.block_of: list[int] = []
        """Module -> number of the block it is or lies in, -1 outside blocks."""
        self.weights: dict[str, Weights] = {c.name: Weights(c) for c in components}
        self._kind_ids: dict[Kind, int] = {}
        self._sort(modules)

    def _kind_id(self, kind: Kind) -> int:
        known = self._kind_ids.get(kind)
        if known is None:
            known = self._kind_ids[kind] = len(self.kinds)
            self.kinds.append(kind)
        return known

    def _sort(self, modules: Sequence[ModuleNode]) -> None:
        families = {
            (name, block.path): number
            for name, weights in self.weights.items()
            for number, block in enumerate(weights.component.blocks)
        }
        roots: dict[str, dict[tuple[int, int], list[int]]] = {}
        foreign: dict[str, bool] = {}
        for i, node in enumerate(modules):
            component = node.component
            if component not in self.weights:
                self.weights[component] = Weights(_unlisted(node))
            if component not in foreign:
                foreign[component] = self.weights[component].foreign
            self.kind_of.append(self._kind_id(_kind(node, foreign[component])) if node.own_bytes else -1)
            head, _, tail = node.path.rpartition(".")
            family = families.get((component, head)) if tail.isdigit() else None
            if family is not None:
                roots.setdefault(component, {}).setdefault((family, int(tail)), []).append(i)
        block_of_root: dict[int, int] = {}
        for name, by_place in roots.items():
            weights = self.weights[name]
            family_sizes: Counter[int] = Counter()
            for number, place in enumerate(sorted(by_place)):
                weights.blocks.append(Counter())
                family_sizes[place[0]] += 1
                for root in by_place[place]:
                    block_of_root[root] = number
            start = 0
            for family in sorted(family_sizes):
                weights.families.append(range(start, start + family_sizes[family]))
                start += family_sizes[family]
        for i, node in enumerate(modules):
            inherited = self.block_of[node.parent] if 0 <= node.parent < i else -1
            self.block_of.append(block_of_root.get(i, inherited) if inherited < 0 else inherited)
        for i, node in enumerate(modules):
            if self.kind_of[i] < 0:
                continue
            weights = self.weights[node.component]
            weights.kinds[self.kind_of[i]] += 1
            target = weights.blocks[self.block_of[i]] if self.block_of[i] >= 0 else weights.unmatched
            target[self.kind_of[i]] += 1
        for i in sorted(range(len(modules)), key=[m.path for m in modules].__getitem__):
            if self.kind_of[i] >= 0:
                self.weights[modules[i].component].order.append(self.kind_of[i])
        for weights in self.weights.values():
            known = sum(self.kinds[k].own_bytes * n for k, n in weights.kinds.items())
            weights.remainder_bytes = max(0, weights.component.loaded_bytes - known)


def _kind(node: ModuleNode, foreign: bool) -> Kind:
    # Heads, which every quantiser leaves, are not numbered as layers are.
    kept = foreign and node.class_name == "Linear" and not node.linear and _NUMBERED.search(node.path) is not None
    layer = node.linear or node.class_name in _CASTABLE or node.class_name.endswith("Embedding")
    return Kind(node.own_bytes, node.own_params, node.linear, node.in_features, layer and node.cast_ok, kept)


def _unlisted(node: ModuleNode) -> Component:
    """A component that the trace enters but the measurement does not list (an adapter's helper model)."""
    return Component(name=node.component, class_name=node.class_name, params=0, loaded_bytes=0, source="trace")
