"""What a scenario does to activations and compute time, stage by stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from oomdoctor.planner.index import TraceIndex
from oomdoctor.planner.scenario import SAME_JOB, Scale, Scenario
from oomdoctor.planner.tables import Table
from oomdoctor.values import Measurement, Stage

_FIXED = (Stage.TEXT_ENCODE, Stage.LOAD, Stage.QUANTIZE, Stage.PLACE)
"""Stages whose activations do not follow the size of the picture."""
_VAE = (Stage.VAE_DECODE, Stage.VAE_ENCODE)
_TILE = {
    "AutoencoderDC": (512, 512), "AutoencoderKLCogVideoX": (240, 360), "AutoencoderKLCosmos": (512, 512),
    "AutoencoderKLLTXVideo": (512, 512), "AutoencoderKLLTX2Video": (512, 512), "AutoencoderKLMagvit": (512, 512),
    "AutoencoderKLHunyuanVideo": (256, 256), "AutoencoderKLHunyuanVideo15": (256, 256), "AutoencoderKLMochi": (256, 256),
    "AutoencoderKLHunyuanImageRefiner": (256, 256), "AutoencoderKLQwenImage": (256, 256),
    "AutoencoderKLQwenImage21": (256, 256), "AutoencoderKLWan": (256, 256),
}  # fmt: skip
"""Tile (height, width) in pixels that ``enable_tiling()`` sets by class; the others take it from the checkpoint's config."""
_CHANNELS = 3
_ELEMENT = 2
_PORTION = 17
"""Frames that diffusers' video VAEs decode at a time when that is switched on (``tile_sample_min_num_frames`` and one)."""


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """Compared by identity, see :func:`transform`. ``peak -> share * (base + own * (peak - base)) + added``; compute seconds times ``time``."""

    share: float = 1.0
    own: float = 1.0
    added: int = 0
    time: float = 1.0
    calls: int = 1
    """How often the whole call runs, each with its own transfers."""
    passes: int = 1
    """How often the component goes through its layers where it did so once: tiles, slices, portions of frames."""

    @property
    def times(self) -> int:
        """How often weights that come and go are fetched for one forward of the measured run."""
        return self.calls * self.passes

    @property
    def plain(self) -> bool:
        """Nothing is cut: only ``added`` comes on top."""
        return self.share == self.own == 1.0

    def of(self, peak: int, base: int) -> int:
        if self.share == self.own == 1.0:
            return peak + self.added
        base = min(base, peak)
        return math.ceil(self.share * (base + self.own * (peak - base))) + self.added


transform = lru_cache(maxsize=4096)(Transform)
"""The one object for those figures."""


@dataclass(frozen=True, slots=True)
class CallShape:
    """The arguments of the measured call that memory depends on; None where the call does not say."""

    height: int | None
    width: int | None
    frames: int | None
    batch: int

    def scaled(self, scale: Scale) -> CallShape:
        side = scale.pixels**0.5
        return CallShape(
            height=None if self.height is None else round(self.height * side),
            width=None if self.width is None else round(self.width * side),
            frames=None if self.frames is None else max(1, round(self.frames * scale.frames)),
            batch=max(1, round(self.batch * scale.batch)),
        )

    @property
    def pixels(self) -> int | None:
        return self.height * self.width if self.height and self.width else None


def call_shape(measurement: Measurement) -> CallShape:
    """Reads ``height``, ``width``, ``num_frames`` and the batch (prompts times images per prompt) of the call."""
    call = measurement.call

    def number(name: str) -> int | None:
        value = call.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    prompt = call.get("prompt")
    prompts = len(prompt) if isinstance(prompt, (list, tuple)) else 1
    per_prompt = number("num_images_per_prompt") or number("num_videos_per_prompt") or 1
    return CallShape(
        number("height"), number("width"), number("num_frames"), number("batch_size") or max(1, prompts) * per_prompt
    )


def transforms(index: TraceIndex, scenario: Scenario) -> list[Transform]:
    """One :class:`Transform` per table of the index."""
    shape = call_shape(index.measurement).scaled(scenario.scale)
    classes = {c.name: c.class_name for c in index.measurement.components}
    share, calls = _split(scenario, shape)
    return [_transform(index, scenario, shape, classes, table, share, calls) for table in index.tables]


def _split(scenario: Scenario, shape: CallShape) -> tuple[float, int]:
    if not scenario.split or scenario.split >= shape.batch:
        return 1.0, 1
    return scenario.split / shape.batch, math.ceil(shape.batch / scenario.split)


def _transform(
    index: TraceIndex, scenario: Scenario, shape: CallShape, classes: dict[str, str], table: Table, share: float,
    calls: int,
) -> Transform:  # fmt: skip
    own, added, time, passes = 1.0, 0, 1.0, 1
    for speed in scenario.speed:
        if speed.stage == table.stage:
            time *= speed.factor
    scale = scenario.scale
    if scale is not SAME_JOB and table.stage not in _FIXED:
        time *= scale.tokens
        portions = table.stage in _VAE and table.portions > 1
        share *= scale.pixels * scale.batch if portions else scale.tokens
        if portions and shape.pixels:
            # A video that is decoded in portions grows only by the finished frames, which are joined at the end.
            more = (shape.frames or 1) * (1.0 - 1.0 / scale.frames) * shape.pixels * shape.batch
            added += max(0, math.ceil(2 * _ELEMENT * _CHANNELS * more))
    name = table.component
    if name is not None:
        own *= _dtype_share(index, scenario, name)
        added += _extra(scenario, table, name)
        if table.stage in _VAE:
            cut, kept, slower, passes = _vae(scenario, shape, classes.get(name, ""))
            own, added, time = own * cut, added + kept, time * slower
    return transform(share, own, added, time, calls, passes)


def _dtype_share(index: TraceIndex, scenario: Scenario, name: str) -> float:
    element = scenario.holding(name).format.activation_element
    component = index.weights[name].component
    if element is None or not component.params or not component.loaded_bytes:
        return 1.0
    return min(1.0, element * component.params / component.loaded_bytes)


def _extra(scenario: Scenario, table: Table, name: str) -> int:
    return sum(
        e.bytes + math.ceil(e.activations * table.block_output)
        for e in scenario.extra
        if e.component == name and table.blocks
    )


def _vae(scenario: Scenario, shape: CallShape, class_name: str) -> tuple[float, int, float, int]:
    """Share of the activation that is left, bytes of finished pieces that are kept, factor on time, how many pieces."""
    cut, slower, passes = 1.0, 1.0, 1
    pieces = min(scenario.split or shape.batch, shape.batch)
    if scenario.slice_vae and pieces > 1:
        cut /= pieces
        passes = pieces
    frames = shape.frames or 1
    decoded = frames
    if scenario.frames is not None and frames > 1:
        portion = scenario.frames.frames or _PORTION
        if portion < frames:
            cut *= portion / frames
            if scenario.frames.frames is None:
                # Portions overlap by half, and all of them wait to be blended.
                decoded, slower = 2 * frames, 2.0
            passes *= math.ceil(decoded / portion)
    tile = scenario.tile
    if tile is None or shape.pixels is None:
        finished = shape.pixels or 0
        return cut, (finished * decoded * pieces * _CHANNELS * _ELEMENT if cut < 1.0 else 0), slower, passes
    sides = (tile.sample_size, tile.sample_size) if tile.sample_size else _TILE.get(class_name)
    assert shape.height is not None and shape.width is not None
    if sides is None or (shape.height <= sides[0] and shape.width <= sides[1]):
        return cut, 0, slower, passes
    (rows, height), (columns, width) = (
        _tiles(whole, side, tile.overlap) for whole, side in zip((shape.height, shape.width), sides, strict=True)
    )
    area = min(shape.height, sides[0]) * min(shape.width, sides[1])
    cut *= area / shape.pixels
    # The decoded tiles all wait until the last one is done; what that one needed is gone when they are joined.
    work = min(height * width, 4 * shape.pixels)
    kept = work * frames * pieces * _CHANNELS * _ELEMENT
    return cut, kept, slower * max(1.0, work / shape.pixels), passes * rows * columns


def _tiles(whole: int, side: int, overlap: float) -> tuple[int, int]:
    """How many tiles lie along a side of the picture, and how long they are together; those at the end are shorter."""
    stride = max(1, round(side * (1.0 - overlap)))
    starts = range(0, whole, stride)
    return len(starts), sum(min(side, whole - start) for start in starts)
