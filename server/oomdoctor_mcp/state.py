"""What tools work with: settings and roots, the jobs of the connection and their private folder, the last results."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from oomdoctor_mcp.children import Update
from oomdoctor_mcp.config import Config
from oomdoctor_mcp.confine import Roots
from oomdoctor_mcp.jobs import Job, Jobs
from oomdoctor_mcp.reports import Reports
from oomdoctor_mcp.scratch import Scratch


@dataclass(frozen=True)
class State:
    """What tools work with."""

    config: Config
    jobs: Jobs
    scratch: Scratch
    reports: Reports

    @property
    def roots(self) -> Roots:
        return Roots(self.config.roots)


Ctx = Context[State, Any]


def state_of(ctx: Ctx) -> State:
    """The state of the connection that a request came over."""
    return ctx.request_context.lifespan_context


def lifespan(config: Config, reports: Reports) -> Any:
    """The life of a connection: everything it started is gone when it ends. ``reports`` outlive it."""

    @asynccontextmanager
    async def live(server: MCPServer[State]) -> AsyncIterator[State]:
        scratch = Scratch()
        try:
            async with anyio.create_task_group() as group:
                jobs = Jobs(group, timeout_s=config.timeout_s, finished=reports.keep)
                try:
                    yield State(config, jobs, scratch, reports)
                finally:
                    jobs.close()
                    group.cancel_scope.cancel()
        finally:
            scratch.close()

    return live


async def report_to(ctx: Ctx, job: Job, update: Update) -> None:
    """Tells the client how far a job is: seconds so far (which only grow), stage and share of it in the message."""
    phase, fraction, message = update
    share = f" {fraction:.0%}" if fraction is not None else ""
    text = f"{phase}{share}{f': {message}' if message else ''}"
    await ctx.report_progress(round(job.elapsed_s, 2), None, text[:200])
