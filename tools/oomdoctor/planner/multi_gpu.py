"""More than one card: what can be spread, what it saves, and what it does not."""

from __future__ import annotations

from dataclasses import replace

from oomdoctor.planner.balance import balanced, sharings
from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.fit import VRAM_MARGIN_SHARE, needed_vram, shortfalls
from oomdoctor.planner.formats import NATIVE
from oomdoctor.planner.scenario import Scenario, scenario_of
from oomdoctor.techniques.effects import MultiGpu
from oomdoctor.techniques.facts import model_facts, pipeline_facts
from oomdoctor.units import GIB, human
from oomdoctor.values import Spreading, Target

VRAM_DOES_NOT_ADD_UP = (
    "Two cards of 12 GB are not one of 24: a model must be spread over them explicitly, each part must fit one card "
    "with its activations, and placing whole components leaves the cards waiting for each other."
)
_MOST_SHARED = 6
"""Components whose placement is searched in full; with more only the largest are, the others stay on card 0."""


def spreadings(evaluator: Evaluator, target: Target) -> tuple[Spreading, ...]:
    """The ways to use ``target.gpu_count`` equal cards, those that fit first; empty for one card."""
    if target.gpu_count < 2:
        return ()
    found = [_balanced(evaluator, target), *_custom(evaluator, target), *_layers(evaluator, target)]
    found += _context(evaluator, target)
    return tuple(sorted(found, key=lambda s: (not s.fits, s.vram_bytes)))


def _fold(evaluator: Evaluator, target: Target, scenario: Scenario) -> tuple[int, bool]:
    figures = evaluator.fold(scenario)
    return needed_vram(figures, target.card.context_bytes), not shortfalls(figures, target)


def _sizes(evaluator: Evaluator) -> dict[str, int]:
    return {n: evaluator.folder.total(n, NATIVE) for n in evaluator.index.weights}


def _budget(evaluator: Evaluator, target: Target) -> int:
    """GiB of each card that weights may take, so that the largest activation still fits beside them."""
    room = int(target.vram_bytes * (1 - VRAM_MARGIN_SHARE)) - target.card.context_bytes
    return max(1, (room - max((t.peak for t in evaluator.index.tables), default=0)) // GIB)


def _limits(evaluator: Evaluator, target: Target, first: int | None = None) -> str:
    budget = _budget(evaluator, target)
    sizes = [budget if first is None else first, *[budget] * (target.gpu_count - 1)]
    return "{" + ", ".join(f'{i}: "{size}GiB"' for i, size in enumerate(sizes)) + "}"


def _balanced(evaluator: Evaluator, target: Target) -> Spreading:
    sizes = _sizes(evaluator)
    vram, fits = _fold(evaluator, target, scenario_of((MultiGpu(target.gpu_count, "components"),)))
    notes = ["A pipeline's device_map places whole components by size alone; none is split."]
    largest, budget = max(sizes, key=lambda n: sizes[n]), _budget(evaluator, target)
    if sizes[largest] > budget * GIB:
        notes.append(
            f"{largest} ({human(sizes[largest])}) is larger than the {budget} GiB a card can give to weights: with such "
            "limits it would stay on the CPU. Split that model by layers instead."
        )
    return Spreading(
        kind="balanced",
        code=f'device_map="balanced", max_memory={_limits(evaluator, target)}',
        vram_bytes=vram,
        fits=fits,
        placement=balanced(sizes, target.gpu_count),
        strategy="device_map(balanced)",
        notes=tuple(notes),
    )


def _custom(evaluator: Evaluator, target: Target) -> list[Spreading]:
    """The best way to give each component a card by hand, where that leaves more room than *balanced*."""
    count, sizes = target.gpu_count, _sizes(evaluator)
    plain = replace(scenario_of((MultiGpu(count, "components"),)))
    ranked = sorted(sizes, key=lambda n: (-sizes[n], n))
    rest = dict.fromkeys(ranked[_MOST_SHARED:], 0)
    facts = pipeline_facts(evaluator.index.measurement.pipeline_class)
    first = facts.first if facts is not None else None
    ways = [{**shared, **rest} for shared in sharings(ranked[:_MOST_SHARED], count)]
    ways = [w for w in ways if first is None or w.get("vae") == w.get(first, w.get("vae"))]
    if not ways or facts is None:
        return []

    def peak(way: dict[str, int]) -> tuple[int, int]:
        return _fold(evaluator, target, replace(plain, cards=way))[0], len(set(way.values()))

    best = min(ways, key=peak)
    vram, fits = _fold(evaluator, target, replace(plain, cards=best))
    if vram >= _fold(evaluator, target, plain)[0]:
        return []
    lines = [
        f'dispatch_model(pipe.{n}.to("cuda:{card}"), {{"": {card}}}, force_hooks=True)' for n, card in best.items()
    ]
    return [
        Spreading(
            kind="custom",
            code="; ".join(lines),
            vram_bytes=vram,
            fits=fits,
            placement=best,
            strategy=f"device_map({', '.join(f'{n}={card}' for n, card in best.items())})",
            notes=(
                "accelerate's dispatch_model puts each component on its card; what one hands to the next crosses the "
                "bus once. The pipeline works on the card of its VAE.",
            ),
        )
    ]


def _layers(evaluator: Evaluator, target: Target) -> list[Spreading]:
    """The largest model split between its blocks, loaded by itself and passed in."""
    parts = evaluator.index.weights
    name = max(parts, key=lambda n: parts[n].component.loaded_bytes)
    if not parts[name].blocks:
        return []
    component = parts[name].component
    facts = model_facts(component.class_name)
    spreads = facts is not None and facts.spreads
    vram, fits = _fold(evaluator, target, scenario_of((MultiGpu(target.gpu_count, "layers"),)))
    sizes, budget = _sizes(evaluator), _budget(evaluator, target)
    beside = sum(sizes.values()) - sizes[name]
    # The rest of the pipeline stands on the first card, which takes fewer layers for that.
    first = min(budget, max(1, (sum(sizes.values()) // target.gpu_count - beside) // GIB))
    loader = (
        f'{component.class_name}.from_pretrained(..., subfolder="{name}", device_map="auto", '
        f"max_memory={_limits(evaluator, target, first)})"
    )
    return [
        Spreading(
            kind="auto",
            code=f"{name} = {loader}",
            vram_bytes=vram,
            fits=fits,
            strategy=f"device_map(auto, {name}, cards={target.gpu_count}, max_gib={budget}, first_gib={first})"
            if spreads
            else None,
            notes=(
                (
                    f"The {name}'s blocks are shared out over {target.gpu_count} cards; the cards work one after the other, "
                    "so nothing gets faster, and hidden states cross the bus at each boundary."
                ),
                'Pass it to the pipeline, whose other components go to the first card (device_map="cuda").',
            ),
        )
    ]


def _context(evaluator: Evaluator, target: Target) -> list[Spreading]:
    parts = evaluator.index.weights
    name = max(parts, key=lambda n: parts[n].component.loaded_bytes)
    facts = model_facts(parts[name].component.class_name)
    if not parts[name].blocks or (facts is not None and not facts.context_parallel):
        return []
    count = target.gpu_count
    vram, fits = _fold(evaluator, target, scenario_of((MultiGpu(count, "context"),)))
    return [
        Spreading(
            kind="context",
            code=f"pipe.{name}.enable_parallelism(config=ContextParallelConfig(ulysses_degree={count}))",
            launch=f"torchrun --nproc-per-node {count} SCRIPT",
            vram_bytes=vram,
            fits=fits,
            strategy=f"context_parallel(cards={count})",
            notes=(
                (
                    "Every card holds all weights; only the activations of the steps are shared out. It is for speed and "
                    "long videos, not for weights that do not fit."
                ),
                "Only models that bring a context-parallel plan take it.",
                "An estimate: it takes several processes, which a virtual run does not have.",
            ),
        )
    ]
