"""Whole components shared out over several cards."""

from __future__ import annotations


def balanced(sizes: dict[str, int], count: int) -> dict[str, int]:
    """Whole components to cards, the largest first, each to the emptiest card."""
    loads = [0] * count
    out: dict[str, int] = {}
    for name in sorted(sizes, key=lambda n: (-sizes[n], n)):
        card = loads.index(min(loads))
        out[name] = card
        loads[card] += sizes[name]
    return out
