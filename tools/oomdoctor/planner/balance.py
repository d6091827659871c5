"""Whole components shared out over several cards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def balanced(sizes: dict[str, int], count: int) -> dict[str, int]:
    """Whole components to cards as diffusers' ``device_map="balanced"`` does it: the largest first, to the cards in
    turn there and back (0, 1, 1, 0, 0, 1, ...), without looking at what they hold already."""
    turn = [*range(count), *range(count - 1, -1, -1)]
    ranked = sorted(sizes, key=lambda n: (-sizes[n], n))
    return {name: turn[number % len(turn)] for number, name in enumerate(ranked)}


def sharings(names: Sequence[str], count: int) -> Iterator[dict[str, int]]:
    """All ways to put the components on at most ``count`` equal cards, counting ways that only swap cards once."""

    def grow(placed: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(placed) == len(names):
            yield placed
            return
        for card in range(min(count, max(placed, default=-1) + 2)):
            yield from grow((*placed, card))

    return (dict(zip(names, placed, strict=True)) for placed in grow(()))
