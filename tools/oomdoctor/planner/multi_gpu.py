"""More than one card: what can be spread, what it saves, and what it does not."""

from __future__ import annotations

from oomdoctor.planner.balance import balanced
from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.fit import VRAM_MARGIN_SHARE, needed_vram, shortfalls
from oomdoctor.planner.formats import NATIVE
from oomdoctor.techniques.effects import MultiGpu
from oomdoctor.units import GIB, human
from oomdoctor.values import Target
from oomdoctor.values.base import Value

VRAM_DOES_NOT_ADD_UP = (
    "Two cards of 12 GB are not one of 24: a model must be spread over them explicitly, each part must fit one card "
    "with its activations, and placing whole components leaves the cards waiting for each other."
)


class Spreading(Value):
    """One way to use several cards."""

    kind: str
    """``components``: device_map of the pipeline; ``layers``: device_map of one model; ``context``: context parallel."""
    code: str
    """The arguments or lines that do it."""
    launch: str | None = None
    """How the script is started, where plain ``python`` does not do."""
    vram_bytes: int
    """Peak on the fullest card, context included."""
    fits: bool
    placement: dict[str, int] = {}
    """Component -> card, where that is decided here."""
    notes: tuple[str, ...] = ()


def spreadings(evaluator: Evaluator, target: Target) -> tuple[Spreading, ...]:
    """The ways to use ``target.gpu_count`` equal cards, those that fit first; empty for one card."""
    if target.gpu_count < 2:
        return ()
    found = [_components(evaluator, target), *_layers(evaluator, target), *_context(evaluator, target)]
    return tuple(sorted(found, key=lambda s: (not s.fits, s.vram_bytes)))


def _fold(evaluator: Evaluator, target: Target, effect: MultiGpu) -> tuple[int, bool]:
    figures = evaluator.figures((effect,))
    return needed_vram(figures, target.card.context_bytes), not shortfalls(figures, target)


def _components(evaluator: Evaluator, target: Target) -> Spreading:
    count = target.gpu_count
    sizes = {n: evaluator.folder.total(n, NATIVE) for n in evaluator.index.weights}
    placement = balanced(sizes, count)
    vram, fits = _fold(evaluator, target, MultiGpu(count, "components"))
    room = int(target.vram_bytes * (1 - VRAM_MARGIN_SHARE)) - target.card.context_bytes
    activation = max((t.peak for t in evaluator.index.tables), default=0)
    budget = max(1, (room - activation) // GIB)
    limits = ", ".join(f'{i}: "{budget}GiB"' for i in range(count))
    largest = max(sizes, key=lambda n: sizes[n])
    notes = [VRAM_DOES_NOT_ADD_UP, "A pipeline's device_map places whole components; none is split."]
    if sizes[largest] > budget * GIB:
        notes.append(
            f"{largest} ({human(sizes[largest])}) is larger than the {budget} GiB a card can give to weights: it would "
            "stay on the CPU. Split that model by layers instead."
        )
    return Spreading(
        kind="components",
        code=f'device_map="balanced", max_memory={{{limits}}}',
        vram_bytes=vram,
        fits=fits,
        placement=placement,
        notes=tuple(notes),
    )


def _layers(evaluator: Evaluator, target: Target) -> list[Spreading]:
    """The largest model split between its blocks, loaded by itself and passed in."""
    parts = evaluator.index.weights
    name = max(parts, key=lambda n: parts[n].component.loaded_bytes)
    if not parts[name].blocks:
        return []
    component = parts[name].component
    vram, fits = _fold(evaluator, target, MultiGpu(target.gpu_count, "layers"))
    loader = f'{component.class_name}.from_pretrained(..., subfolder="{name}", device_map="auto")'
    return [
        Spreading(
            kind="layers",
            code=f"{name} = {loader}",
            vram_bytes=vram,
            fits=fits,
            notes=(
                (
                    f"The {name}'s blocks are shared out over {target.gpu_count} cards; the cards work one after the other, "
                    "so nothing gets faster, and hidden states cross the bus at each boundary."
                ),
                VRAM_DOES_NOT_ADD_UP,
            ),
        )
    ]


def _context(evaluator: Evaluator, target: Target) -> list[Spreading]:
    parts = evaluator.index.weights
    name = max(parts, key=lambda n: parts[n].component.loaded_bytes)
    if not parts[name].blocks:
        return []
    count = target.gpu_count
    vram, fits = _fold(evaluator, target, MultiGpu(count, "context"))
    return [
        Spreading(
            kind="context",
            code=f"pipe.{name}.enable_parallelism(config=ContextParallelConfig(ulysses_degree={count}))",
            launch=f"torchrun --nproc-per-node {count} SCRIPT",
            vram_bytes=vram,
            fits=fits,
            notes=(
                (
                    "Every card holds all weights; only the activations of the steps are shared out. It is for speed and "
                    "long videos, not for weights that do not fit."
                ),
                "Only models that bring a context-parallel plan take it.",
            ),
        )
    ]
