"""Pictures of runs: memory over time against the card's limit, and several runs side by side. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oomdoctor.errors import InputError
from oomdoctor.report.files import finished_file
from oomdoctor.report.text import VERDICTS
from oomdoctor.units import GIB, duration, human
from oomdoctor.values import Comparison, Moment, Trial

ENDINGS = (".png", ".svg", ".pdf")
OUTSIDE, WEIGHTS, ACTIVATIONS, RESERVED, LIMIT = "#c9c9c9", "#4878a8", "#e49444", "#9fb8d0", "#c23b3b"
STAGE_SHADES = ("#f4f4f4", "#e6ecf2")
NARROW = 0.035
"""Share of the width below which a stage has no room for its name."""


def _pyplot(path: Path) -> Any:
    """matplotlib without a display. Raises :class:`InputError` when it or the ending is missing."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"--plot {path}: the name ends in none of {', '.join(ENDINGS)}. Choose one of them.")
    try:
        import matplotlib
    except ImportError:
        raise InputError(
            "--plot needs matplotlib, which is not installed beside oom-doctor: pip install 'oom-doctor[plot]' "
            "(pipx inject oom-doctor matplotlib, or uvx --with matplotlib oom-doctor)."
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def check(path: Path) -> None:
    """Say before a run, not after it, that its picture could not be drawn. Raises :class:`InputError`."""
    _pyplot(path)


def plot_run(trial: Trial, path: Path, title: str = "") -> None:
    """Memory of the card over one run. The trial must have a timeline. Raises :class:`InputError` without one."""
    pyplot = _pyplot(path)
    line = trial.timeline
    if line is None or not line.seconds:
        raise InputError(
            f"There is nothing to draw: the run ended ({trial.outcome}) before it took memory of the card."
        )
    figure, axes = pyplot.subplots(figsize=(11, 5.2), layout="constrained")
    outside = trial.context_bytes or 0
    total = (trial.usable_bytes or 0) + outside
    seconds = list(line.seconds)
    base = [outside / GIB] * len(seconds)
    weights = [(outside + w) / GIB for w in line.weights_bytes]
    allocated = [(outside + a) / GIB for a in line.allocated_bytes]
    reserved = [(outside + r) / GIB for r in line.reserved_bytes]
    _shade_stages(axes, trial)
    axes.fill_between(seconds, 0, base, color=OUTSIDE, label="CUDA context", linewidth=0, step="post")
    axes.fill_between(seconds, base, weights, color=WEIGHTS, label="weights", linewidth=0, step="post")
    axes.fill_between(seconds, weights, allocated, color=ACTIVATIONS, label="activations", linewidth=0, step="post")
    axes.plot(
        seconds,
        reserved,
        color="#333333",
        linewidth=1.1,
        linestyle=":",
        drawstyle="steps-post",
        label="reserved by the allocator",
    )
    axes.axhline(total / GIB, color=LIMIT, linewidth=1.8, label=f"limit of the card, {human(total)}")
    top = max([total / GIB, *reserved])
    if trial.died is not None:
        top = max(top, _mark_death(axes, trial, trial.died, outside, seconds[-1]))
    elif trial.peak is not None and trial.peak.seconds is not None:
        _mark_peak(axes, trial.peak, outside)
    axes.set_ylim(0, top * (1.35 if trial.died else 1.14))
    axes.set_xlim(min(0.0, seconds[0]), max(seconds[-1], 1e-6) * (1.02 if trial.died else 1.0))
    axes.set_xlabel("predicted seconds" if trial.device.startswith("virtual") else "seconds")
    axes.set_ylabel("GiB on the card")
    axes.set_title(f"{title + ': ' if title else ''}{VERDICTS[trial.outcome]} on {trial.device}", loc="left")
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    _save(pyplot, figure, path)


def _shade_stages(axes: Any, trial: Trial) -> None:
    line = trial.timeline
    assert line is not None
    end = max(line.seconds[-1], 1e-9)
    merged: list[tuple[str, float, float]] = []
    for s in line.stretches:
        name = s.stage.value.replace("_", " ")
        if merged and merged[-1][0] == name:
            merged[-1] = (name, merged[-1][1], s.end)
        else:
            merged.append((name, s.start, s.end))
    for i, (name, start, stop) in enumerate(merged):
        axes.axvspan(start, stop, color=STAGE_SHADES[i % 2], zorder=0, linewidth=0)
        if (stop - start) / end >= NARROW:
            flat = (stop - start) / end >= 0.012 * len(name)
            axes.text((start + stop) / 2, 0.985, name, transform=axes.get_xaxis_transform(), ha="center", va="top",
                      fontsize=9, rotation=0 if flat else 90, color="#444444")  # fmt: skip


def _mark_peak(axes: Any, peak: Moment, outside: int) -> None:
    x, y = peak.seconds or 0.0, (outside + peak.allocated_bytes) / GIB
    axes.plot([x], [y], marker="v", color="#333333", markersize=6)
    axes.annotate(
        f"peak {y:.2f} GiB in use", (x, y), textcoords="offset points", xytext=(-6, 8), ha="right", fontsize=9
    )


def _mark_death(axes: Any, trial: Trial, died: Moment, outside: int, end: float) -> float:
    """The point where the request would have ended, and what it was. Returns its height in GiB."""
    held = died.reserved_bytes if died.reserved_bytes is not None else died.allocated_bytes
    x = died.seconds if died.seconds is not None else end
    low, high = (outside + held) / GIB, (outside + held + (died.requested_bytes or 0)) / GIB
    axes.plot([x, x], [low, high], color=LIMIT, linewidth=1.4, linestyle="--")
    axes.plot([x], [high], marker="X", color=LIMIT, markersize=11, zorder=5)
    line = f", line {died.line}" if died.line else ""
    text = f"out of memory{line}, {human(died.requested_bytes)} asked for"
    axes.annotate(text, (x, high), textcoords="offset points", xytext=(-12, 0), ha="right", va="center", fontsize=9,
                  color=LIMIT, bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2})  # fmt: skip
    return high


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """One bar per run against the limit of its card: context, weights, what else was allocated, and reserved."""
    pyplot = _pyplot(path)
    rows = comparison.rows
    figure, axes = pyplot.subplots(figsize=(11, 1.4 + 0.62 * len(rows)), layout="constrained")
    several = len({r.script for r in rows}) > 1
    for y, row in enumerate(rows):
        trial = row.trial
        moment = trial.died or trial.peak
        outside = trial.context_bytes or 0
        weights = sum(a.bytes for a in moment.alive if a.kind == "weights") if moment else 0
        allocated = trial.peak_allocated_bytes or 0
        parts = (
            (outside, OUTSIDE, "CUDA context"),
            (min(weights, allocated), WEIGHTS, "weights at the peak"),
            (max(0, allocated - weights), ACTIVATIONS, "activations"),
            (max(0, (trial.peak_reserved_bytes or 0) - allocated), RESERVED, "cached by the allocator"),
        )
        left = 0.0
        for size, color, name in parts:
            axes.barh(y, size / GIB, left=left, color=color, height=0.62, label=name if y == 0 else None)
            left += size / GIB
        if trial.died is not None and trial.died.requested_bytes:
            asked = trial.died.requested_bytes / GIB
            axes.barh(y, asked, left=left, facecolor="none", edgecolor=LIMIT, linestyle="--", height=0.62)
            left += asked
        limit = ((trial.usable_bytes or 0) + outside) / GIB
        axes.plot([limit, limit], [y - 0.42, y + 0.42], color=LIMIT, linewidth=2.4,
                  label="limit of the card" if y == 0 else None)  # fmt: skip
        words = VERDICTS[trial.outcome] if row.fits or trial.outcome != "ok" else "too tight"
        if trial.outcome == "ok":
            words += f", {duration(trial.seconds)}"
        axes.text(max(left, limit), y, f"  {words}", va="center", fontsize=9, color="#222222" if row.fits else LIMIT)
    names = [f"{r.script}\n{r.card}" if several else r.card for r in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.set_xlabel("GiB on the card")
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    _save(pyplot, figure, path)


def _save(pyplot: Any, figure: Any, path: Path) -> None:
    try:
        with finished_file(path, "--plot") as name:
            figure.savefig(name, dpi=130)
    finally:
        pyplot.close(figure)
