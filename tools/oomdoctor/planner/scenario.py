"""A set of effects, sorted by what they act on: the weights of each component, the activations, the clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from oomdoctor.planner.formats import NATIVE, PLAIN, WeightFormat, weight_format
from oomdoctor.techniques.effects import (
    AllocatorSetting,
    Attention,
    ChunkFeedForward,
    Effect,
    ExtraMemory,
    FrameVae,
    LoadOnce,
    MultiGpu,
    Place,
    Release,
    SliceVae,
    SpeedFactor,
    SplitBatch,
    Store,
    TileVae,
)
from oomdoctor.values import Stage

EVERY = "*"
RESIDENT = Place(EVERY, "resident")


@dataclass(frozen=True, slots=True, eq=False)
class Holding:
    """How the weights of one component are kept. Equal ones are the same object (:func:`holding`)."""

    place: Place
    format: WeightFormat
    at_load: bool = True
    on_card: bool = True


@lru_cache(maxsize=4096)
def holding(place: Place, store: Store | None, whole: Store | None = None) -> Holding:
    """The one object for that way of keeping weights, so that it can be looked up by identity."""
    store = store or whole
    fmt = NATIVE if store is None else weight_format(store, whole)
    return Holding(place, fmt, store is None or store.at_load, store is None or store.on_card)


@dataclass(frozen=True, slots=True)
class Scale:
    """A larger or smaller job than the measured one, as factors."""

    pixels: float = 1.0
    frames: float = 1.0
    batch: float = 1.0

    @property
    def tokens(self) -> float:
        """Activations of the denoiser and the VAE grow with the number of latent elements."""
        return self.pixels * self.frames * self.batch


SAME_JOB = Scale()


@dataclass(frozen=True)
class Scenario:
    """What the evaluator folds. Built by :func:`scenario_of`."""

    places: dict[str, Place] = field(default_factory=dict)
    stores: dict[str, Store] = field(default_factory=dict)
    releases: dict[str, Stage] = field(default_factory=dict)
    tile: TileVae | None = None
    slice_vae: bool = False
    frames: FrameVae | None = None
    split: int | None = None
    attention: Attention | None = None
    chunks: int | None = None
    speed: tuple[SpeedFactor, ...] = ()
    extra: tuple[ExtraMemory, ...] = ()
    gpus: MultiGpu | None = None
    cards: dict[str, int] | None = None
    """Component -> card, where a person decides that and not the loader."""
    allocator: dict[str, str] = field(default_factory=dict)
    load_once: bool = False
    scale: Scale = SAME_JOB

    def holding(self, component: str) -> Holding:
        place = self.places.get(component) or self.places.get(EVERY) or RESIDENT
        return holding(place, self.stores.get(component), self.stores.get(EVERY))

    @property
    def activation_key(self) -> tuple[object, ...]:
        """Everything that changes activations or the clock; equal keys have equal transforms."""
        return (
            self.tile, self.slice_vae, self.frames, self.split, self.speed, self.extra, self.scale,
            tuple((name, s.format) for name, s in self.stores.items() if s.format in PLAIN),
        )  # fmt: skip

    @property
    def expandable(self) -> bool:
        return self.allocator.get("expandable_segments", "").lower() == "true"


def scenario_of(effects: Iterable[Effect]) -> Scenario:
    """Sorts effects; of two of one kind on one component the later one holds."""
    places: dict[str, Place] = {}
    stores: dict[str, Store] = {}
    releases: dict[str, Stage] = {}
    allocator: dict[str, str] = {}
    speed: list[SpeedFactor] = []
    extra: list[ExtraMemory] = []
    single: dict[type, Effect] = {}
    for effect in effects:
        match effect:
            case Place():
                places[effect.component] = effect
            case Store():
                stores[effect.component] = effect
            case Release():
                releases[effect.component] = effect.after_stage
            case AllocatorSetting():
                allocator[effect.name] = effect.value
            case SpeedFactor():
                speed.append(effect)
            case ExtraMemory():
                extra.append(effect)
            case _:
                single[type(effect)] = effect
    tile, frames, split = single.get(TileVae), single.get(FrameVae), single.get(SplitBatch)
    attention, chunks, gpus = single.get(Attention), single.get(ChunkFeedForward), single.get(MultiGpu)
    return Scenario(
        places=places,
        stores=stores,
        releases=releases,
        tile=tile if isinstance(tile, TileVae) else None,
        slice_vae=SliceVae in single,
        frames=frames if isinstance(frames, FrameVae) else None,
        split=split.n if isinstance(split, SplitBatch) else None,
        attention=attention if isinstance(attention, Attention) else None,
        chunks=chunks.chunks if isinstance(chunks, ChunkFeedForward) else None,
        speed=tuple(speed),
        extra=tuple(extra),
        gpus=gpus if isinstance(gpus, MultiGpu) else None,
        allocator=allocator,
        load_once=LoadOnce in single,
    )
