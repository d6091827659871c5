"""An agent without a model: a fixed policy over our MCP tools, spoken to by the real protocol in memory.

It proves that the tools carry the information, not that a model would use it. It sees what any client sees: the list
of tools with their schemas, and results. Preferences are passed as arguments where a tool's schema has them, and held
against the rows of the answer in any case.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
from oomdoctor.hardware import card

from oomdoctor_evals.agents.cached_cli import command
from oomdoctor_evals.agents.policy import Policy, ToolFailed, Tools
from oomdoctor_evals.agents.warm import Worker
from oomdoctor_evals.values import MIB, Attempt, Scenario, ToolCall

WAIT_S = 590.0
RETRIES = 3


class ScriptedAgent:
    """Plays :class:`~.policy.Policy` against the server."""

    name = "scripted"

    def __init__(self, cache: Path | None = None, *, stdio: bool = False) -> None:
        self.cache = cache
        self.stdio = stdio
        self._worker = Worker()

    def close(self) -> None:
        """End the process that runs the tools' commands."""
        self._worker.close()

    def attempt(self, scenario: Scenario) -> Attempt:
        """One conversation with a fresh server."""
        return anyio.run(self._attempt, scenario)

    async def _attempt(self, scenario: Scenario) -> Attempt:
        from mcp import Client

        start = time.monotonic()
        transcript: list[ToolCall] = []
        error = None
        answer = None
        async with Client(self._server(), mode="auto", read_timeout_seconds=WAIT_S) as client:
            listed = await client.list_tools()
            schemas = {tool.name: set(tool.input_schema.get("properties", {})) for tool in listed.tools}

            async def call(name: str, **arguments: Any) -> dict[str, Any]:
                given = {k: v for k, v in arguments.items() if k in schemas[name] and v is not None}
                return await _call(client, transcript, name, given)

            try:
                answer = await Policy(Tools(call, schemas), scenario.question(), free_gib(scenario)).answer()
            except ToolFailed as failed:
                error = str(failed)
        return Attempt(
            scenario=scenario.id, agent=self.name, answer=answer, error=error, transcript=tuple(transcript),
            seconds=time.monotonic() - start,
        )  # fmt: skip

    def _server(self) -> Any:
        if self.stdio:
            import sys

            from mcp import StdioServerParameters

            return StdioServerParameters(command=sys.executable, args=["-m", "oomdoctor_mcp", "--allow-exec"])
        from oomdoctor_mcp.app import build
        from oomdoctor_mcp.config import Config

        return build(Config(roots=(), allow_exec=True, command=command(self.cache, self._worker.start())))


def free_gib(scenario: Scenario) -> float:
    """Card memory that the person's script may use."""
    machine = scenario.machine
    return (card(machine.gpu).total_bytes - machine.used_by_others_mib * MIB) / 2**30


async def _call(client: Any, transcript: list[ToolCall], name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """One tool call, waiting as long as it runs. Raises :class:`ToolFailed`."""
    given = dict(arguments)
    for _ in range(RETRIES + 20):
        start = time.monotonic()
        reply = await client.call_tool(name, given)
        result: dict[str, Any] = reply.structured_content or {}
        if reply.is_error:
            text = " ".join(getattr(block, "text", "") for block in reply.content)
            transcript.append(ToolCall(tool=name, arguments=arguments, result={"error": text[:2000]}))
            raise ToolFailed(f"{name}: {text[:600]}")
        if result.get("status") != "running":
            transcript.append(
                ToolCall(tool=name, arguments=arguments, result=result, seconds=time.monotonic() - start)
            )  # fmt: skip
            return result
        given = {"job_id": result["job_id"], "wait_s": WAIT_S}
    raise ToolFailed(f"{name} did not come to an end")
