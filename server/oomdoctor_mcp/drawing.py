"""Draws the pictures, in a process of its own: ``python -m oomdoctor_mcp.drawing FILE`` prints ``{"png": base64}``.

The server itself never imports matplotlib. ``FILE`` is JSON: ``{"kind": "trials", "trials": {title: trial}}`` or
``{"kind": "plan", "plan": plan, "limit_bytes": bytes or null}``.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oomdoctor.units import GIB
from oomdoctor.values import Plan, Quality, Stage, StrategyOption, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STAGE_COLOURS = {
    Stage.LOAD: "#9aa5b1",
    Stage.QUANTIZE: "#7b8794",
    Stage.PLACE: "#62b0e8",
    Stage.TEXT_ENCODE: "#8ed081",
    Stage.IMAGE_ENCODE: "#5fad56",
    Stage.DENOISE: "#f2c14e",
    Stage.VAE_ENCODE: "#c38d9e",
    Stage.VAE_DECODE: "#e27d60",
}
_QUALITY_COLOURS = {
    Quality.IDENTICAL: "#5fad56",
    Quality.EQUIVALENT: "#8ed081",
    Quality.SLIGHT: "#f2c14e",
    Quality.NOTICEABLE: "#e27d60",
}
_OTHER = "#cbd2d9"


def main(argv: list[str]) -> int:
    """Draws what the file describes. Status 2 when matplotlib is not there."""
    asked = json.loads(Path(argv[0]).read_text("utf-8"))
    try:
        png = draw(asked)
    except ImportError:
        print(json.dumps({"error": {"class": "InputError", "message": "matplotlib is not installed"}}), file=sys.stderr)
        return 2
    print(json.dumps({"png": base64.b64encode(png).decode()}))
    return 0


def draw(asked: dict[str, Any]) -> bytes:
    """The picture as PNG. Raises :class:`ImportError` without matplotlib."""
    from matplotlib.figure import Figure

    if asked["kind"] == "trials":
        trials = {title: Trial.model_validate(trial) for title, trial in asked["trials"].items()}
        title, only = next(iter(trials.items()))
        if len(trials) == 1 and only.timeline is not None and only.timeline.seconds:
            return over_time(title, only)
        figure = Figure(figsize=(9, 3.4 * len(trials)), layout="constrained")
        rows = figure.subplots(len(trials), 1, squeeze=False)
        for axes, (title, trial) in zip(rows[:, 0], trials.items(), strict=True):
            draw_trial(axes, title, trial)
    else:
        plan = Plan.model_validate(asked["plan"])
        figure = Figure(figsize=(9, 1.6 + 0.55 * len(plan.strategies)), layout="constrained")
        draw_plan(figure.subplots(), plan.strategies, asked.get("limit_bytes"))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def over_time(title: str, trial: Trial) -> bytes:
    """Memory over the run, as ``oom-doctor run --plot`` draws it."""
    from oomdoctor.report.plot import plot_run

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.png"
        plot_run(trial, file, title)
        return file.read_bytes()


def draw_trial(axes: Axes, title: str, trial: Trial) -> None:
    """Memory of the card stage by stage: what tensors held as bars, what the allocator kept as a line."""
    names, places = [], range(len(trial.stages))
    for stage in trial.stages:
        names.append("\n".join(filter(None, (stage.stage.value, stage.component, _seconds(stage.seconds)))))
    colours = [_STAGE_COLOURS.get(stage.stage, _OTHER) for stage in trial.stages]
    axes.bar(places, [s.peak_allocated_bytes / GIB for s in trial.stages], 1.0, color=colours, edgecolor="white")
    axes.stairs(
        [s.peak_reserved_bytes / GIB for s in trial.stages],
        [place - 0.5 for place in (*places, len(names))],
        baseline=None,
        color="black",
        label="reserved by the allocator",
    )
    if trial.usable_bytes is not None:
        axes.axhline(trial.usable_bytes / GIB, color="crimson", linestyle="--", label="usable on the card")
    ended = {"ok": "finishes", "oom": "out of memory", "error": "fails", "timeout": "took too long"}[trial.outcome]
    axes.set_title(f"{title}: {ended} on {trial.device}", loc="left", fontsize=10)
    axes.set_ylabel("peak GiB on the card")
    axes.set_xticks(places, names, fontsize=7)
    axes.margins(x=0)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, frameon=False)


def _seconds(seconds: float | None) -> str | None:
    return f"{seconds:.1f} s" if seconds and seconds >= 0.05 else None


def draw_plan(axes: Axes, options: tuple[StrategyOption, ...], limit_bytes: int | None) -> None:
    """One bar per strategy: peak VRAM, coloured by what it does to the picture, with RAM and seconds beside it."""
    names = [option.id.replace("+", "\n+ ") for option in options]
    sizes = [option.estimate.vram_bytes / GIB for option in options]
    colours = [_QUALITY_COLOURS[option.estimate.quality] for option in options]
    axes.barh(names, sizes, color=colours)
    for row, option in enumerate(options):
        time = f", {option.estimate.seconds:.0f} s" if option.estimate.seconds is not None else ""
        words = f" {option.estimate.ram_bytes / GIB:.1f} GiB RAM{time}, {option.estimate.quality.value}"
        axes.text(0.0, row, words, va="center", ha="left", fontsize=8)
    if limit_bytes is not None:
        axes.axvline(limit_bytes / GIB, color="crimson", linestyle="--", label="VRAM of the card")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
    axes.set_xlabel("peak VRAM, GiB")
    axes.set_title("Strategies that fit, best first", loc="left", fontsize=10)
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
