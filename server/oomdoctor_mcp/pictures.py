"""Pictures of results as image content, drawn by a child; without one the answer is complete all the same."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import anyio
from mcp.types import ImageContent
from oomdoctor.errors import OomDoctorError
from oomdoctor.values import Plan, StrategyOption, Trial

from oomdoctor_mcp.children import Command, run
from oomdoctor_mcp.state import State

DRAWING_S = 60.0
MAX_BASE64 = 2 << 20


class Picture(NamedTuple):
    """The image, or the reason why there is none."""

    images: tuple[ImageContent, ...] = ()
    warnings: tuple[str, ...] = ()


async def of_trials(state: State, trials: Mapping[str, Trial | None]) -> Picture:
    """Memory over the stages of each trial, one above the other; the keys are their titles."""
    known = {title: trial.model_dump(mode="json") for title, trial in trials.items() if trial and trial.stages}
    if not known:
        return Picture(warnings=("There is no picture: no trial got as far as a stage.",))
    return await _drawn(state, {"kind": "trials", "trials": known})


async def of_plan(state: State, options: Sequence[StrategyOption], limit_bytes: int | None) -> Picture:
    """A bar per strategy; ``limit_bytes``: VRAM of the card."""
    if not options:
        return Picture(warnings=("There is no picture: nothing fits, so there is nothing to compare.",))
    plan = Plan(strategies=tuple(options)).model_dump(mode="json")
    return await _drawn(state, {"kind": "plan", "plan": plan, "limit_bytes": limit_bytes})


async def _drawn(state: State, asked: dict[str, Any]) -> Picture:
    folder = state.scratch.new()
    try:
        file = folder / "asked.json"
        file.write_text(json.dumps(asked), "utf-8")
        with anyio.fail_after(DRAWING_S):
            done = await run(Command((sys.executable, "-m", "oomdoctor_mcp.drawing", str(file)), folder), _unheard)
    except (OomDoctorError, TimeoutError):
        return Picture(warnings=("The picture could not be drawn; the figures are complete without it.",))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if done.error is not None:
        return Picture(warnings=(f"There is no picture: {done.error[1]} where this server runs (extra: plot).",))
    png = (done.value or {}).get("png")
    if not isinstance(png, str) or len(png) > MAX_BASE64:
        return Picture(warnings=("The picture could not be drawn; the figures are complete without it.",))
    return Picture(images=(ImageContent(type="image", data=png, mime_type="image/png"),))


def _unheard(update: object) -> None:
    """A drawing has no progress."""
