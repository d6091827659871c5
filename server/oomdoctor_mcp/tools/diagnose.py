"""``diagnose_oom``."""

from __future__ import annotations

import re
from typing import Annotated

import anyio.to_thread
from mcp.types import CallToolResult
from oomdoctor.errors import NoError, OomDoctorError
from oomdoctor.units import human
from oomdoctor.values import Diagnosis, Script

from oomdoctor_mcp import inputs
from oomdoctor_mcp.answers import result, short_diagnosis
from oomdoctor_mcp.params import DetailLevel, LogPath, LogText, ScriptPath, ScriptText
from oomdoctor_mcp.state import Ctx, state_of
from oomdoctor_mcp.tools import tool

_SIZE = re.compile(r"\d [KMGT]iB")
"""The cause has figures already."""


class DiagnosisAnswer(Diagnosis):
    """What the traceback says."""

    summary: str = ""
    """The answer in a few sentences, figures with their units."""


def sentence(diagnosis: Diagnosis) -> str:
    """Where it died and why, with the figures that the message gives."""
    if not diagnosis.is_oom:
        return f"Not an out-of-memory error: {diagnosis.cause}"
    where = diagnosis.stage.value + (f" ({diagnosis.component})" if diagnosis.component else "")
    figures = [
        f"{human(amount)} {words}"
        for amount, words in (
            (diagnosis.requested_bytes, "asked for"),
            (diagnosis.free_bytes, "free"),
            (diagnosis.allocated_bytes, "held by tensors"),
            (diagnosis.other_process_bytes, "held by other programs"),
            (diagnosis.capacity_bytes, "in all"),
        )
        if amount is not None
    ]
    said = f"Out of memory ({diagnosis.kind.value}) in {where}: {diagnosis.cause}"
    return f"{said} {', '.join(figures)}." if figures and not _SIZE.search(diagnosis.cause) else said


@tool
async def diagnose_oom(
    ctx: Ctx,
    traceback: LogText = "",
    traceback_path: LogPath = "",
    script: ScriptText = "",
    script_path: ScriptPath = "",
    detail: DetailLevel = "concise",
) -> Annotated[CallToolResult, DiagnosisAnswer]:
    """Read a traceback or log: is it out of memory, of which memory, at which stage of the pipeline, and why.

    When to use: someone pasted an error of a diffusers script and wants to know what happened. Executes nothing and
    takes milliseconds. Pass the script too when it is at hand: it sharpens the stage and the advice. To get a patch
    right away use fix_oom instead. Example: {"traceback": "Traceback (most recent call last): ..."}
    """
    roots = state_of(ctx).roots
    text, warnings = inputs.log(roots, traceback, traceback_path)
    if not text.strip():
        raise NoError("No traceback was given. Pass the error's text as traceback, or a log file as traceback_path.")
    given = inputs.script(roots, script, script_path) if script or script_path else None

    def read() -> DiagnosisAnswer:
        from oomdoctor.diagnosis import diagnose

        read_script, notes = _script(given)
        diagnosis = diagnose(text, script=read_script)
        shown = diagnosis if detail == "full" else short_diagnosis(diagnosis)
        fields = dict(shown) | {"warnings": (*warnings, *notes, *shown.warnings)}
        return DiagnosisAnswer(**fields, summary=sentence(diagnosis))

    return result(await anyio.to_thread.run_sync(read))


def _script(given: inputs.ScriptInput | None) -> tuple[Script | None, tuple[str, ...]]:
    """The script, read; a bad one is worth a warning here, since the traceback is what counts."""
    if given is None:
        return None, ()
    from oomdoctor.script import read_script

    try:
        return read_script(given.content, path=given.name), given.warnings
    except OomDoctorError as error:
        return None, (*given.warnings, f"The script was not used: {error}")
