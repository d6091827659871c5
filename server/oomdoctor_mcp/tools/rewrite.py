"""``rewrite_script``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import anyio.to_thread
from mcp.server.elicitation import AcceptedElicitation
from mcp.server.mcpserver import Elicit, ElicitationResult, Resolve
from mcp.types import CallToolResult
from oomdoctor.errors import OomDoctorError, WouldOverwrite
from oomdoctor.values import Patch, Strategy
from pydantic import BaseModel, Field

from oomdoctor_mcp import inputs
from oomdoctor_mcp.answers import result
from oomdoctor_mcp.params import ScriptPath, ScriptText, StrategyId
from oomdoctor_mcp.state import Ctx, State, state_of
from oomdoctor_mcp.tools import tool


class RewriteAnswer(Patch):
    """The patched script."""

    summary: str = ""
    """What changes, in a sentence."""
    next_step: str = ""
    """What to do now."""
    written_to: str | None = None
    """The file that was written; nothing was when this is absent."""
    kept: str | None = None
    """Where the replaced file's old content is now."""


class Confirm(BaseModel):
    """The person's answer to whether a file may be replaced."""

    replace: bool = Field(description="Replace the file? Its old content is kept beside it.")


OutputPath = Annotated[
    str,
    Field(
        max_length=4096,
        description="Write the patched script here, inside the server's folder. A new file, such as 'generate_12gb.py'; "
        "for an existing one the person is asked. Default: nothing is written.",
    ),
]


async def may_replace(ctx: Ctx, output_path: str) -> Confirm | Elicit[Confirm]:
    """Asks the person when the file exists and their client can ask; where it cannot, the answer is no."""
    if not output_path.strip():
        return Confirm(replace=False)
    try:
        path = state_of(ctx).roots.target(output_path)
    except OomDoctorError:
        return Confirm(replace=False)  # the tool itself says what is wrong
    can_ask = ctx.client_capabilities is not None and ctx.client_capabilities.elicitation is not None
    if not path.exists() or not can_ask:
        return Confirm(replace=False)
    return Elicit(f"Replace {path} with the patched script? The old content is kept beside it as a .bak file.", Confirm)


@tool
async def rewrite_script(
    ctx: Ctx,
    strategy: StrategyId,
    script: ScriptText = "",
    script_path: ScriptPath = "",
    output_path: OutputPath = "",
    *,
    answer: Annotated[ElicitationResult[Confirm], Resolve(may_replace)],
) -> Annotated[CallToolResult, RewriteAnswer]:
    """Write a strategy into a script: the smallest edit, as a diff and as the whole text, with a reason per change.

    When to use: after compute_strategies or fix_oom, with a strategy id from there. The script is parsed, never
    executed. Writes a file only when output_path is given. Example:
    {"script_path": "generate.py", "strategy": "model_offload+vae_tiling", "output_path": "generate_12gb.py"}
    """
    state = state_of(ctx)
    given = inputs.script(state.roots, script, script_path)
    target = state.roots.target(output_path) if output_path.strip() else None
    agreed = isinstance(answer, AcceptedElicitation) and answer.data.replace
    if target is not None and target.exists() and not agreed:
        raise WouldOverwrite(
            f"{output_path} exists, and nobody agreed to replace it; nothing was written. Choose a new name as "
            "output_path, or leave it out and hand the person the patched text."
        )
    return result(await anyio.to_thread.run_sync(_rewrite, state, given, strategy, target, agreed))


def _rewrite(
    state: State, given: inputs.ScriptInput, strategy: str, target: Path | None, agreed: bool
) -> RewriteAnswer:
    import shutil

    from oomdoctor.hardware import libraries_of
    from oomdoctor.rewrite import rewrite

    folder = state.scratch.new()
    try:
        file = given.read(folder)
        versions = libraries_of(state.config.python)
        patch = rewrite(file.text, Strategy.parse(strategy), script=file.script, versions=versions)
        kept = None
        if target is not None:
            # A notebook stays a notebook only in a notebook's file.
            notebook = file.script.is_notebook and target.suffix.lower() == ".ipynb"
            encoded = file.encode(patch.source) if notebook or not file.script.is_notebook else patch.source.encode()
            kept = state.roots.write(target, encoded, replace=agreed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    fields = dict(patch) | {"warnings": (*given.warnings, *patch.warnings)}
    return RewriteAnswer(
        **fields,
        summary=_sentence(patch, target),
        next_step=_next(patch, target),
        written_to=str(target) if target else None,
        kept=str(kept) if kept else None,
    )


def _sentence(patch: Patch, target: Path | None) -> str:
    if not patch.changed:
        return f"Nothing changes: the script does {patch.strategy} already."
    where = f" Written to {target}." if target else " Nothing was written."
    reasons = " ".join(dict.fromkeys(reason.text for reason in patch.reasons))
    return f"{patch.strategy} written into the script. {reasons}{where}"


def _next(patch: Patch, target: Path | None) -> str:
    by_hand = " First do what by_hand lists." if patch.by_hand else ""
    path = "script_path=the new file" if target else "script=source"
    return f"Call verify_script with {path} and the card to prove that it fits.{by_hand}"
