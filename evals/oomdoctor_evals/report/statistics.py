"""Shares with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z95 = 1.959963984540054


def wilson(passed: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share; (0, 1) without data.

    >>> [round(x, 3) for x in wilson(38, 40)]
    [0.835, 0.986]
    """
    if total == 0:
        return 0.0, 1.0
    share = passed / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def pass_k(outcomes: Sequence[Sequence[bool]], k: int) -> float | None:
    """Share of tasks that k attempts would all pass: the mean of C(passed, k) / C(tried, k).

    ``outcomes``: the attempts of each task. None when a task has fewer than k attempts.
    """
    if not outcomes or any(len(tried) < k for tried in outcomes):
        return None
    return sum(math.comb(sum(tried), k) / math.comb(len(tried), k) for tried in outcomes) / len(outcomes)


def cluster_error(values: Sequence[float], clusters: Sequence[str]) -> float:
    """Standard error of the mean when values of a cluster (a family) go together.

    Source: the clustered standard error of arXiv 2411.00640.
    """
    n = len(values)
    if n == 0:
        return 0.0
    mean = sum(values) / n
    sums: dict[str, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + (value - mean)
    return math.sqrt(sum(s * s for s in sums.values())) / n
