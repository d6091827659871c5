"""When nothing fits: the smallest changes that would help, the cheapest first. Each was tried before it is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from oomdoctor.planner.evaluator import Evaluator
from oomdoctor.planner.fit import RAM_MARGIN_SHARE, vram_margin
from oomdoctor.planner.inverse import largest_jobs
from oomdoctor.planner.rank import order
from oomdoctor.planner.rules import Prefer, Rules
from oomdoctor.planner.space import Candidate
from oomdoctor.units import GIB, MIB, human
from oomdoctor.values import Card, LargestJob, Quality, Target

_CLOSEST = 3
_PICTURE = "Accept"

Fitting = Callable[[Rules], Sequence[Candidate]]
"""What fits under other rules."""


def unlocks(
    evaluator: Evaluator, candidates: Sequence[Candidate], target: Target, rules: Rules, prefer: Prefer,
    fitting: Fitting,
) -> tuple[str, ...]:  # fmt: skip
    """Sentences, each one change that would make something fit."""
    limit = math.inf
    if rules.max_slowdown is not None and evaluator.resident_seconds > 0:
        limit = rules.max_slowdown * evaluator.resident_seconds
    quick = [c for c in candidates if c.figures.seconds <= limit]
    out = [
        *_patience(candidates, evaluator, rules),
        *_rules(rules, target, prefer, fitting),
        *_smaller_job(evaluator, quick, target),
        *_memory(quick),
        *_pinned(quick),
        *_card(quick, target),
    ]
    return tuple(dict.fromkeys(out))


def _patience(candidates: Sequence[Candidate], evaluator: Evaluator, rules: Rules) -> list[str]:
    fitting = [c for c in candidates if not c.short]
    if not fitting or rules.max_slowdown is None:
        return []
    fastest = min(fitting, key=lambda c: c.figures.seconds)
    factor = math.ceil(100 * fastest.figures.seconds / max(evaluator.resident_seconds, 1e-9)) / 100
    return [
        f"Allow {factor:.2f}x the time (you asked for at most {rules.max_slowdown:g}x): {fastest.strategy.id} fits."
    ]


def _rules(rules: Rules, target: Target, prefer: Prefer, fitting: Fitting) -> list[str]:
    """Each rule by itself; where none of them is enough, all together."""
    eased = list(_eased(rules))
    out: list[str] = []
    for words, fewer in eased:
        if out and out[-1].startswith(_PICTURE) and words.startswith(_PICTURE):
            continue  # what changes the picture less is enough
        if found := fitting(fewer):
            out.append(f"{words}: {min(found, key=order(prefer, target, found)).strategy.id} fits then.")
    if out or len(eased) < 2:
        return out
    if found := fitting(Rules(without=rules.without)):
        best = min(found, key=order(prefer, target, found))
        asked = ", ".join(words[0].lower() + words[1:] for words, _ in eased)
        out.append(f"None of your rules alone stands in the way, but together they do ({asked}): "
                   f"{best.strategy.id} fits without them.")  # fmt: skip
    return out


def _eased(rules: Rules) -> Iterator[tuple[str, Rules]]:
    if rules.no_quantisation:
        yield "Allow quantisation", rules.model_copy(update={"no_quantisation": False})
    if rules.no_new_packages:
        yield "Allow a new package", rules.model_copy(update={"no_new_packages": False})
    if rules.keep_batch:
        yield "Allow the batch to be split", rules.model_copy(update={"keep_batch": False})
    if rules.worst_quality is not Quality.NOTICEABLE:
        noticeable = rules.model_copy(update={"worst_quality": Quality.NOTICEABLE})
        if rules.worst_quality is not Quality.SLIGHT:
            yield (
                f"{_PICTURE} slight changes of the picture",
                rules.model_copy(update={"worst_quality": Quality.SLIGHT}),
            )
        yield f"{_PICTURE} noticeable changes of the picture", noticeable


def _smaller_job(evaluator: Evaluator, candidates: Sequence[Candidate], target: Target) -> list[str]:
    """The largest job that the strategies nearest to fitting can do."""
    only_card = [c for c in candidates if set(c.short) == {"vram"}]
    best: dict[str, tuple[LargestJob, Candidate]] = {}
    for candidate in sorted(only_card, key=lambda c: c.short["vram"])[:_CLOSEST]:
        for job in largest_jobs(evaluator, (e for c in candidate.choices for e in c.effects), target):
            if job.factor < 1.0 and (job.dimension not in best or job.factor > best[job.dimension][0].factor):
                best[job.dimension] = (job, candidate)
    return [f"{_job(job)} fits with {candidate.strategy.id}." for job, candidate in best.values()]


def _job(job: LargestJob) -> str:
    if job.dimension == "resolution":
        return f"A smaller picture: {job.width}x{job.height}"
    return f"Fewer frames: {job.frames}" if job.dimension == "frames" else f"A smaller batch: {job.batch}"


def _ram(candidate: Candidate) -> int:
    return int(candidate.figures.host.peak * (1 + RAM_MARGIN_SHARE))


def _memory(candidates: Sequence[Candidate]) -> list[str]:
    short = [c for c in candidates if set(c.short) == {"ram"}]
    if not short:
        return []
    best = min(short, key=lambda c: (_ram(c) // GIB, len(c.choices), c.figures.seconds))
    return [f"{-(-_ram(best) // GIB)} GiB of RAM ({human(best.short['ram'])} more): {best.strategy.id} fits then."]


def _pinned(candidates: Sequence[Candidate]) -> list[str]:
    short = [c for c in candidates if set(c.short) == {"pinned"}]
    if not short:
        return []
    best = min(short, key=lambda c: c.short["pinned"])
    return [f"A higher limit of page-locked memory ({human(best.short['pinned'])} more): {best.strategy.id} fits then."]


def _card(candidates: Sequence[Candidate], target: Target) -> list[str]:
    """A larger card: for the cheapest strategy with the machine's RAM, and for the script as it is."""
    out = []
    with_ram = [c for c in candidates if set(c.short) <= {"vram"}]
    plain = [c for c in candidates if not c.choices]
    for group, text in ((with_ram, "with {id}"), (plain, "for the script as it is")):
        if not group:
            continue
        best = min(group, key=lambda c: (c.vram // (64 * MIB), len(c.choices), c.figures.seconds))
        need = best.vram + vram_margin(best.vram)
        if need <= target.vram_bytes:
            continue
        cards = [c for c in _cards() if c.total_bytes >= need]
        named = min(cards, key=lambda c: c.total_bytes, default=None)
        card = f", such as {named.label}" if named else ", which no single card of the catalogue has"
        out.append(f"A card with {human(need)} free{card}, {text.format(id=best.strategy.id)}.")
    return out


def _cards() -> tuple[Card, ...]:
    from oomdoctor.hardware.gpus.catalogue import cards

    return cards()
