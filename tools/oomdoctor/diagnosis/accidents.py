"""What the script itself gives away: accidents that cost memory, named when the text of the script shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from oomdoctor.values import Call, Known, Optimisation, PipelineUse, Placement, Script

_DEVICES = ("cuda", "mps", "xpu", "hip")
_FP32 = ("float32", "float", "auto", "None")
_BATCHED = ("num_images_per_prompt", "num_videos_per_prompt", "batch_size")
_PIXELS = ("height", "width")
_HAS_INPUT_SIZE = ("image", "video", "control_image", "mask_image", "latents")
_TAGS = {
    "dtype": "dtype",
    "place": "offload",
    "batch": "batch",
    "size": "smaller_job",
    "kept": "batch",
    "grad": "environment",
}


@dataclass(frozen=True)
class Finding:
    """An accident in the script: what kind, in words, and the technique tag that mends it."""

    accident: str
    text: str

    @property
    def tag(self) -> str:
        return _TAGS[self.accident]


def accidents(script: Script | None) -> tuple[Finding, ...]:
    """The accidents that the text of the script shows."""
    if script is None:
        return ()
    found = [Finding(*f) for use in script.pipelines if use.runs is not False for f in _of_pipeline(use)]
    if script.no_grad_missing:
        found.append(
            Finding(
                "grad",
                "A model is called outside torch.no_grad(): autograd keeps every activation, and VAE tiling then even "
                "needs more memory. Wrap the call in torch.inference_mode().",
            )
        )
    return tuple(dict.fromkeys(found))


def _of_pipeline(use: PipelineUse) -> Iterator[tuple[str, str]]:
    if use.kind == "pipeline" and use.loader == "from_pretrained" and _is_fp32(use):
        yield (
            "dtype",
            (
                f"No dtype is given where {use.class_name or use.variable} is loaded (line {use.load_span.line}): weights "
                "become float32, twice the memory of bfloat16. Pass dtype=torch.bfloat16."
            ),
        )
    for part in use.components:
        if part.loader == "from_pretrained" and part.dtype.certainty == "default" and not _cast_later(use):
            yield (
                "dtype",
                (
                    f"No dtype is given where the component {part.name} is loaded: its weights become float32, whatever the "
                    "pipeline's dtype says. Pass dtype=torch.bfloat16 there too."
                ),
            )
    yield from _placed_before_offload(use)
    for call in use.calls:
        yield from _of_call(use, call)


def _cast_later(use: PipelineUse) -> bool:
    return any(p.dtype.certainty in ("literal", "derived") for p in use.placements)


def _is_fp32(use: PipelineUse) -> bool:
    if _cast_later(use):
        return False
    if use.dtype.certainty == "default":
        return True
    return use.dtype.certainty in ("literal", "derived") and str(use.dtype.value).removeprefix("torch.") in _FP32


def _placed_before_offload(use: PipelineUse) -> Iterator[tuple[str, str]]:
    offloads = [o for o in use.optimisations if "offload" in o.method and o.runs is not False]
    for placed in use.placements:
        if placed.target != use.variable or placed.kind not in ("to", "cuda") or placed.runs is False:
            continue
        if placed.kind == "to" and not str(placed.device.value).startswith(_DEVICES):
            continue
        after = [o for o in offloads if _before(placed, o)]
        if after:
            yield (
                "place",
                (
                    f"{placed.target} is moved to the GPU as a whole (line {placed.span.line}) before {after[0].method}() "
                    f"(line {after[0].span.line}) is set up: that move needs all of it at once. Remove it."
                ),
            )
            return


def _before(placed: Placement, optimisation: Optimisation) -> bool:
    if placed.order and optimisation.order:
        return placed.order < optimisation.order
    return placed.span.line <= optimisation.span.line


def _of_call(use: PipelineUse, call: Call) -> Iterator[tuple[str, str]]:
    names = call.arguments
    if use.kind == "pipeline" and not any(p in names for p in _PIXELS) and not any(p in names for p in _HAS_INPUT_SIZE):
        yield (
            "size",
            (
                f"height and width are not given at the call in line {call.span.line}: the pipeline's default size applies, "
                "which can be far larger than intended."
            ),
        )
    for name in _BATCHED:
        count = _number(names.get(name))
        if count is not None and count > 1:
            yield "batch", f"{name}={count} makes {count} results at once: ask for one at a time in a loop."
    prompt = names.get("prompt") or (call.positional[0] if call.positional else None)
    if prompt is not None and isinstance(prompt.value, list | tuple) and len(prompt.value) > 1:
        yield "batch", f"{len(prompt.value)} prompts are run as one batch: run them one at a time."
    if call.kept_on_device:
        yield (
            "kept",
            (
                f"Results of the call in line {call.span.line} are kept while they may still be on the GPU: move them to "
                "the CPU (or keep the PIL images) before the next one."
            ),
        )


def _number(known: Known | None) -> int | None:
    return (
        known.value
        if known is not None and isinstance(known.value, int) and not isinstance(known.value, bool)
        else None
    )
