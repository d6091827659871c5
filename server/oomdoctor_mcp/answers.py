"""What every tool gives back: the value itself, plus what to say and what to do next, as fields.

Clients show a model either the structured content or the text, so both carry the same JSON. Concise means: nothing
that is empty or unknown, and none of the bulk; ``detail="full"`` sends the bulk too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from enum import Enum
from typing import Any, Literal

from mcp.types import CallToolResult, ContentBlock, TextContent
from oomdoctor.values import Diagnosis, Estimate, Moment, Patch, StrategyOption, Trial, Value
from pydantic import BaseModel

from oomdoctor_mcp.jobs import Job

_STAY = {"warnings", "gpus", "components", "stages", "strategies", "alternatives", "source", "diff", "reasons"}
"""Shown even when empty: an empty list is an answer there."""


class Answer(Value):
    """What a person should be told, what comes next, and what to watch out for."""

    summary: str = ""
    """The answer in a few sentences, figures with their units."""
    next_step: str = ""
    """What to do now: which tool to call with what, or what to ask the person."""
    warnings: tuple[str, ...] = ()
    """What may be wrong with this answer, or was assumed for it."""


class LongAnswer(Answer):
    """The answer of a tool that can take longer than a client waits."""

    status: Literal["done", "running"] = "done"
    """``running``: call the same tool again with only ``job_id`` to go on waiting."""
    job_id: str | None = None
    elapsed_s: float | None = None
    phase: str | None = None
    """What it is doing: waiting, starting, loading, encoding, denoising, decoding, planning, proving, ..."""
    fraction: float | None = None
    """How much of the phase is done, 0 to 1."""
    report: str | None = None
    """Resource with the complete result, for as long as it is among the last ones."""


def result(answer: BaseModel, images: Sequence[ContentBlock] = ()) -> CallToolResult:
    """The answer as structured content and, with the same facts, as text."""
    data = lean(answer)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return CallToolResult(content=[TextContent(type="text", text=text), *images], structured_content=data)


def lean(answer: BaseModel) -> dict[str, Any]:
    """``answer`` as JSON: what was set in it, without what is unknown or empty; the fields that callers count on stay."""
    return {
        name: _plain(value)
        for name, value in answer
        if name in answer.model_fields_set and value is not None and (name in _STAY or not _empty(value))
    }


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            name: _plain(inner)
            for name, inner in value
            if fields[name].is_required() or not _says_nothing(inner, fields[name].default)
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value


def _says_nothing(value: Any, default: Any) -> bool:
    """Unknown, empty, or a zero that is there by default."""
    return value is None or _empty(value) or (not value and value == default)


def _empty(value: Any) -> bool:
    return isinstance(value, (str, tuple, list, dict)) and not value


def running(job: Job) -> dict[str, Any]:
    """The fields of a :class:`LongAnswer` for a job that goes on."""
    doing = f"{job.update.phase}{f' ({job.update.message})' if job.update.message else ''}"
    return {
        "status": "running",
        "job_id": job.id,
        "elapsed_s": round(job.elapsed_s, 1),
        "phase": job.update.phase,
        "fraction": job.update.fraction,
        "summary": f"Still running after {job.elapsed_s:.0f} s: {doing}.",
        "next_step": f"Call {job.tool} again with job_id={job.id!r} and nothing else to go on waiting for the result.",
    }


def finished(job: Job) -> dict[str, Any]:
    """The fields of a :class:`LongAnswer` that say which job it was."""
    return {
        "status": "done",
        "job_id": job.id,
        "elapsed_s": round(job.elapsed_s, 1),
        "report": f"oomdoctor://reports/{job.id}",
    }


# -- the concise form of values: only fields with a default may be left out ------------------------------------------


def short_diagnosis(diagnosis: Diagnosis) -> Diagnosis:
    """Without the stack and the whole message: the evidence quotes what matters of it."""
    message = None if diagnosis.evidence else diagnosis.message
    return diagnosis.model_copy(update={"frames": (), "evidence": diagnosis.evidence[:4], "message": message})


def short_option(option: StrategyOption) -> StrategyOption:
    """The row of a table: peaks, seconds, quality."""
    leave: dict[str, object] = {"stages": (), "rests_on": (), "leaves_out": ()}
    leave |= dict.fromkeys(("first_seconds", "transfer_seconds", "compute_seconds"))
    estimate: Estimate = option.estimate.model_copy(update=leave)
    return option.model_copy(update={"estimate": estimate})


def short_trial(trial: Trial) -> Trial:
    """Peaks per stage stay; the error keeps its end, the lists of what was alive their head, the timeline goes."""
    largest = sorted(trial.alive_at_peak.items(), key=lambda pair: -pair[1])[:6]
    return trial.model_copy(
        update={
            "error": trial.error[-800:] if trial.error and trial.diagnosis is None else None,
            "alive_at_peak": dict(largest),
            "diagnosis": short_diagnosis(trial.diagnosis) if trial.diagnosis else None,
            "assumptions": (),
            "notes": trial.notes[:4],
            "peak": None,
            "died": _short_moment(trial.died),
            "timeline": None,
        }
    )


def shortest_trial(trial: Trial) -> Trial:
    """How it ended and its peaks, for a trial whose story is told elsewhere in the answer."""
    short = short_trial(trial)
    return short.model_copy(update={"stages": (), "alive_at_peak": {}, "diagnosis": None, "notes": (), "files": ()})


def _short_moment(moment: Moment | None) -> Moment | None:
    return moment.model_copy(update={"alive": moment.alive[:4]}) if moment else None


MAX_SOURCE = 12_000
"""Characters of a patched script in a concise answer; the diff says the same."""


def short_patch(patch: Patch) -> tuple[Patch, tuple[str, ...]]:
    """Without the source when it is long, and then a warning that says how to get it."""
    if len(patch.source) <= MAX_SOURCE:
        return patch, ()
    words = (
        f"patch.source ({len(patch.source)} characters) was left out; patch.diff is complete. rewrite_script with "
        "strategy_id and output_path writes the file; detail='full' sends the text."
    )
    return patch.model_copy(update={"source": ""}), (words,)
