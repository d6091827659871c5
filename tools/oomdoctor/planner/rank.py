"""Which of the strategies that fit are shown, and in which order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from oomdoctor.planner.rules import Prefer, Rules
from oomdoctor.planner.space import Candidate
from oomdoctor.techniques.effects import Place, Release, Store
from oomdoctor.values import Quality, Target

BALANCED_SHARE = 0.8
"""Of the free memory: *balanced* likes to leave the rest to the desktop, the next prompt, a larger picture."""
EASE_ABOVE: dict[Prefer, float] = {"quality": 1.0, "speed": 1.0, "balanced": BALANCED_SHARE, "memory": 0.0}
"""Share of the free memory above which a preference wants stages eased that fit already."""
_SAME_SECONDS = math.log(1.05)
"""Within 5 % two estimates of time are the same, and the simpler strategy wins."""
_QUALITY_PRICE = {Quality.IDENTICAL: 1.0, Quality.EQUIVALENT: 1.0, Quality.SLIGHT: 1.6, Quality.NOTICEABLE: 4.0}
"""*balanced*: how many times longer one may wait for a picture of the best class."""
_ALIKE = 1.02
_TIGHT_PRICE = 1.3
_CLEARLY = 0.93
"""A figure below this share of another's is a difference that a reader cares about."""

Key = tuple[float, ...]


def allowed(candidates: Iterable[Candidate], rules: Rules, resident_seconds: float) -> list[Candidate]:
    """Those that fit and are not slower than the rules allow."""
    limit = math.inf
    if rules.max_slowdown is not None and resident_seconds > 0:
        limit = rules.max_slowdown * resident_seconds
    return [c for c in candidates if not c.short and c.figures.seconds <= limit]


def order(prefer: Prefer, target: Target, pool: Sequence[Candidate]) -> Callable[[Candidate], Key]:
    """Sorting key, best first. Times are counted in steps of 5 % from the fastest of ``pool``, so that what is within
    5 % of it is as fast, and the simpler strategy wins."""

    def price(c: Candidate) -> float:
        tight = c.vram > BALANCED_SHARE * target.vram_bytes
        return c.figures.seconds * _QUALITY_PRICE[c.quality] * (_TIGHT_PRICE if tight else 1.0)

    fastest = min((c.figures.seconds for c in pool), default=0.0)
    cheapest = min((price(c) for c in pool), default=0.0)

    def quality(c: Candidate) -> Key:
        return (_class(c), _level(c.figures.seconds, fastest), len(c.choices), c.packages, c.vram, c.figures.reserved)

    def speed(c: Candidate) -> Key:
        return (_level(c.figures.seconds, fastest), _class(c), len(c.choices), c.packages, c.vram, c.figures.reserved)

    def memory(c: Candidate) -> Key:
        return (c.vram // (64 << 20), _class(c), _level(c.figures.seconds, fastest), len(c.choices), c.figures.reserved)

    def balanced(c: Candidate) -> Key:
        return (_level(price(c), cheapest), _class(c), len(c.choices), c.packages, c.vram, c.figures.reserved)

    return {"quality": quality, "speed": speed, "memory": memory, "balanced": balanced}[prefer]


def shown(candidates: Iterable[Candidate], prefer: Prefer, target: Target, limit: int) -> list[Candidate]:
    """The best of each kind, at most ``limit``, each better than every one before it in something that counts.

    Where there are both, quantised and unquantised ones have a third of the places at least, in the order of rank.
    """
    pool = list(candidates)
    key = order(prefer, target, pool)
    best: dict[tuple[object, ...], Candidate] = {}
    for candidate in sorted(pool, key=key):
        best.setdefault(kind(candidate), candidate)
    ranked: list[Candidate] = []
    for candidate in best.values():
        if all(_tells_apart(candidate, other) for other in ranked) and not any(
            _makes_needless(other, candidate) for other in pool
        ):
            ranked.append(candidate)
    for wanted in (False, True):
        # One of each sort is shown even where the other sort beats it in everything: people ask for it.
        if not any(quantised(c) is wanted for c in ranked):
            ranked += [c for c in best.values() if quantised(c) is wanted][:1]
    top = ranked[:limit]
    share = 1 if 1 < limit < 6 else limit // 3
    for wanted in (False, True):
        more = [c for c in ranked[limit:] if quantised(c) is wanted]
        lacking = min(len(more), share - sum(quantised(c) is wanted for c in top))
        for other in more[: max(0, lacking)]:
            last = next(c for c in reversed(top) if quantised(c) is not wanted)
            top = [*(c for c in top if c is not last), other]
    return sorted(top, key=key)


def _tells_apart(candidate: Candidate, before: Candidate) -> bool:
    """It is clearly better than the one ranked before it in at least one respect."""
    a, b = candidate.figures, before.figures
    return (
        candidate.rank < before.rank
        or candidate.packages < before.packages
        or a.seconds <= _CLEARLY * b.seconds
        or candidate.vram <= _CLEARLY * before.vram
        or a.host.peak <= _CLEARLY * b.host.peak
    )


def pareto(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other one beats in card memory, seconds, quality and host memory at once."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.vram, c.figures.seconds, len(c.choices))):
        if not any(_beats(other, candidate) for other in front):
            front.append(candidate)
    return front


def _makes_needless(simpler: Candidate, candidate: Candidate) -> bool:
    """Fewer techniques (or as many, and clearly less memory) do as well in every respect."""
    if simpler is candidate or len(simpler.choices) > len(candidate.choices):
        return False
    a, b = simpler.figures, candidate.figures
    if simpler.rank > candidate.rank or simpler.packages > candidate.packages:
        return False
    as_good = (
        simpler.vram <= _ALIKE * candidate.vram
        and a.seconds <= _ALIKE * b.seconds
        and a.host.peak <= _ALIKE * b.host.peak
    )
    return as_good and (len(simpler.choices) < len(candidate.choices) or a.seconds < 0.9 * b.seconds)


def _beats(a: Candidate, b: Candidate) -> bool:
    return (
        a.vram <= b.vram
        and a.figures.seconds <= b.figures.seconds
        and a.rank <= b.rank
        and a.figures.host.peak <= b.figures.host.peak
    )


def quantised(candidate: Candidate) -> bool:
    """A quantiser is part of it."""
    return any(c.quantises for c in candidate.choices)


def kind(candidate: Candidate) -> tuple[object, ...]:
    """What makes it different from the others, for a reader: ways of placing, of storing, of releasing."""
    effects = [e for c in candidate.choices for e in c.effects]
    return (
        frozenset((e.mode, e.stream) for e in effects if isinstance(e, Place)),
        frozenset(_family(e) for e in effects if isinstance(e, Store)),
        any(isinstance(e, Release) for e in effects),
    )


def _family(store: Store) -> str:
    if store.format in ("nf4", "fp4", "int4", "gguf-q4", "gguf-q5"):
        return "4-bit"
    if store.format in ("int8", "gguf-q8", "gguf-q6") or (store.format == "fp8" and store.linear_only):
        return "8-bit"
    return "cast" if store.format == "fp8" else "dtype"


def _class(c: Candidate) -> int:
    """Bit-identical and numerically equivalent pictures count as one class."""
    return max(0, c.rank - 1)


def _level(seconds: float, best: float) -> int:
    """How many steps of 5 % ``seconds`` lies above ``best``."""
    return int(math.log(seconds / best) / _SAME_SECONDS) if best > 0 else 0
