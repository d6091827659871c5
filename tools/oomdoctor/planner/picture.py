"""The picture of memory over time under a strategy. Needs matplotlib, which is imported when it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from oomdoctor.errors import InputError
from oomdoctor.planner.evaluator import Figures
from oomdoctor.planner.timeline import Point
from oomdoctor.units import GIB, human

_OUTSIDE, _WEIGHTS, _ACTIVATIONS, _LIMIT = "#c9c9c9", "#4878a8", "#e49444", "#c23b3b"
_SHADES = ("#f4f4f4", "#e6ecf2")
_LEAST_WIDTH = 0.12
"""Share of the picture that a stage gets however short it is: a VAE's second is where the memory goes."""


def check(file: Path) -> None:
    """Says before the work, not after it, that the picture could not be written. Raises :class:`InputError`."""
    if file.suffix.lower() != ".png":
        raise InputError(f"{file}: the picture is a PNG; choose a name that ends in .png.")
    if not file.resolve().parent.is_dir():
        raise InputError(f"{file}: there is no such folder. Make it first, or choose another.")
    _figure()


def draw(
    points: Sequence[Point], file: Path, title: str, *, figures: Figures | None = None, context_bytes: int = 0,
    capacity: int | None = None,
) -> None:  # fmt: skip
    """Writes memory over time as PNG: context, weights, activations, and with ``figures`` what the allocator holds.

    ``capacity``: the card's free memory, drawn as a line. Raises :class:`InputError` where matplotlib is missing.
    """
    figure = _figure()(figsize=(11, 5), layout="constrained")
    axes = figure.subplots()
    across = _across(axes, points)
    axes.stackplot(
        across,
        [[context_bytes / GIB] * len(points), [p.weights / GIB for p in points], [p.activation / GIB for p in points]],
        labels=["CUDA context", "weights", "activations"],
        colors=[_OUTSIDE, _WEIGHTS, _ACTIVATIONS],
        step="pre",
        linewidth=0,
    )
    top = max(context_bytes + p.allocated for p in points)
    if figures is not None:
        held = [figures.stages[p.stage].reserved if p.stage in figures.stages else 0 for p in points]
        reserved = [(context_bytes + h) / GIB for h in held]
        axes.plot(
            across, reserved, color="#333333", linewidth=1.1, linestyle=":", label="highest reserved of the stage"
        )
        top = max(top, context_bytes + max(held))
    if capacity is not None:
        axes.axhline(capacity / GIB, color=_LIMIT, linewidth=1.8, label=f"free on the card, {human(capacity)}")
        top = max(top, capacity)
    axes.set(
        title=title,
        xlabel="predicted seconds of one call; short stages are drawn wider than they are",
        ylabel="GiB on the card",
    )
    axes.set_ylim(0, top / GIB * 1.25)
    axes.set_xlim(0, across[-1])
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.savefig(file, format="png", dpi=110)


def _across(axes: Any, points: Sequence[Point]) -> list[float]:
    """Where each point is drawn; gives each stage a background, a name and the seconds at which it begins and ends."""
    stretches: list[tuple[str, list[Point]]] = []
    for stage, members in groupby(points, key=lambda p: p.stage):
        inside = list(members)
        begun = stretches[-1][1][-1].seconds if stretches else 0.0
        if inside[-1].seconds > begun or not stretches:
            stretches.append((stage.value, inside))
        else:
            stretches[-1][1].extend(inside)
    total = max(points[-1].seconds, 1e-9)
    out: list[float] = []
    ticks, labels = [0.0], ["0"]
    start = begun = 0.0
    for number, (name, inside) in enumerate(stretches):
        spent = inside[-1].seconds - begun
        if not spent:
            out += [start] * len(inside)
            continue
        width = max(spent / total, _LEAST_WIDTH)
        out += [start + width * (p.seconds - begun) / spent for p in inside]
        axes.axvspan(start, start + width, color=_SHADES[number % 2], zorder=0)
        axes.text(start + width / 2, 0.9, name.replace("_", " "), transform=axes.get_xaxis_transform(), ha="center",
                  fontsize=9)  # fmt: skip
        start, begun = start + width, inside[-1].seconds
        ticks.append(start)
        labels.append(f"{begun:.3g}")
    axes.set_xticks(ticks, labels)
    return out


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(
            "drawing needs matplotlib, which is not installed beside oom-doctor: pip install 'oom-doctor[plot]'"
        ) from None
    return Figure
