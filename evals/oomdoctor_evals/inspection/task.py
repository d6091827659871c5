"""The task: every scenario a sample, the conditions as an argument, models or command-line agents as solvers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.agent import AgentSubmit, react
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.tool import mcp_server_stdio, mcp_tools

from oomdoctor_evals.inspection.conditions import CONDITIONS, SKILL, Condition, system_text
from oomdoctor_evals.inspection.scorer import fit
from oomdoctor_evals.loader import load_all

MESSAGES = 60
SECONDS = 1800


@task  # type: ignore[untyped-decorator]  # inspect_ai is an extra that the type checker does not see
def oom_doctor(
    condition: str = "skill_tools", scenarios: str | None = None, docs: str | None = None, agent: str = "react"
) -> Task:
    """``condition``: bare, docs, skill, tools, skill_tools, skill_tools_no_verify. ``agent``: react, claude_code, codex."""
    chosen = CONDITIONS[condition]
    samples = [
        Sample(
            id=s.public_id,
            input=json.dumps(s.question(), indent=1),
            metadata={"family": s.family, "category": s.category, "folder": str(s.folder)},
        )
        for s in load_all(Path(scenarios) if scenarios else None)
    ]
    text = system_text(chosen, Path(docs) if docs else None)
    return Task(
        dataset=MemoryDataset(samples),
        solver=_solver(agent, chosen, text),
        scorer=fit(),
        message_limit=MESSAGES,
        time_limit=SECONDS,
        metadata={"condition": condition},
    )


def _server() -> Any:
    return mcp_server_stdio(name="oom-doctor", command=sys.executable, args=["-m", "oomdoctor_mcp", "--allow-exec"])


def _solver(agent: str, condition: Condition, text: str) -> Any:
    if agent == "react":
        tools = [mcp_tools(_server(), tools=list(condition.tools))] if condition.tools else []
        return react(prompt=text, tools=tools, submit=AgentSubmit(answer_only=True))
    from inspect_swe import claude_code, codex_cli  # type: ignore[import-not-found]

    make = {"claude_code": claude_code, "codex": codex_cli}[agent]
    options: dict[str, Any] = {"system_prompt": text}
    if condition.skill:
        options["skills"] = [str(SKILL)]
    if condition.tools:
        options["bridged_tools"] = [_server()]
    return make(**options)
