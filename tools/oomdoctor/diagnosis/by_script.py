"""Stage and component by the script: which of its statements was running, and what its pipeline is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator

from oomdoctor.diagnosis.stages import NOWHERE, Place
from oomdoctor.values import PipelineUse, Script, Span, Stage

_WEIGHT = 44
_PART = {"decode": Stage.VAE_DECODE, "encode": Stage.VAE_ENCODE, "encode_prompt": Stage.TEXT_ENCODE}
_HAS_UNET = re.compile(
    r"^(?:StableDiffusion(?!3)|StableVideo|Kolors|AnimateDiff|LatentConsistency|Kandinsky(?![56])|I2VGen|TextToVideoSD|IF)"
)
_ANY = re.compile(r"^(?:DiffusionPipeline|AutoPipeline)")


def by_line(script: Script, line: int | None) -> Place:
    """The stage of the script's statement on ``line``."""
    if line is None:
        return NOWHERE
    places = [(span, where) for use in script.pipelines for span, where in _spans(use)]
    inside = [(span, where) for span, where in places if span.line <= line <= span.end_line]
    if not inside:
        return NOWHERE
    # Statements nest (a load with .to() chained): the smallest that holds the line, then the later one, was running.
    return min(reversed(inside), key=lambda p: p[0].end_line - p[0].line)[1]


def _spans(use: PipelineUse) -> Iterator[tuple[Span, Place]]:
    yield use.load_statement, Place(Stage.LOAD, _WEIGHT)
    for part in use.components:
        if part.span is not None:
            yield part.span, Place(Stage.LOAD, _WEIGHT, part.name)
    for placed in use.placements:
        if placed.kind in ("to", "cuda") and not placed.chained:
            yield placed.span, Place(Stage.PLACE, _WEIGHT)
    for call in use.calls:
        yield call.span, Place(Stage.DENOISE, _WEIGHT - 4, component_of(use, Stage.DENOISE))
    for call in use.part_calls:
        stage = _PART.get(call.pipeline.rsplit(".", 1)[-1])
        if stage is not None:
            yield call.span, Place(stage, _WEIGHT, component_of(use, stage))


def component_of(use: PipelineUse | None, stage: Stage) -> str | None:
    """The component that does ``stage`` in that pipeline, as far as its class tells."""
    if stage in (Stage.VAE_DECODE, Stage.VAE_ENCODE):
        return "vae"
    if use is None or stage is not Stage.DENOISE:
        return None
    for part in use.components:
        if part.name in ("transformer", "unet"):
            return part.name
    if use.class_name is None or not use.class_name.endswith("Pipeline") or _ANY.match(use.class_name):
        return None
    return "unet" if _HAS_UNET.match(use.class_name) else "transformer"
