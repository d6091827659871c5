"""Serving over stdin and stdout, and leaving nothing behind however it ends."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from oomdoctor_mcp.config import Config, from_argv

if TYPE_CHECKING:
    from mcp.server import MCPServer

    from oomdoctor_mcp.state import State


def serve(argv: Sequence[str]) -> int:
    """Parses ``argv``, serves until stdin ends. Returns the exit status."""
    try:
        config = from_argv(argv)
    except ValueError as error:
        print(f"oom-doctor serve: {error}", file=sys.stderr)
        return 2
    except SystemExit as leaving:  # --help
        return leaving.code if isinstance(leaving.code, int) else 0
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="oom-doctor: %(message)s")
    anyio.run(serve_config, config)
    return 0


async def serve_config(config: Config) -> None:
    """Serves with these settings until stdin ends or a signal says so."""
    from oomdoctor_mcp.app import build

    async with anyio.create_task_group() as group:
        done = anyio.CancelScope()
        group.start_soon(_until_told, done)
        group.start_soon(_sweep)
        await _run(build(config), done)
        group.cancel_scope.cancel()


async def _sweep() -> None:
    from oomdoctor_mcp.scratch import sweep

    await anyio.to_thread.run_sync(sweep)


async def _run(server: MCPServer[State], done: anyio.CancelScope) -> None:
    """What ``run_stdio_async`` does, with a way out: its reader waits for stdin in a thread that cannot be stopped, so
    that after a signal it would never come back. The process ends as soon as the connection's own things are gone."""
    from mcp.server.stdio import stdio_server

    low = server._lowlevel_server
    with done:
        async with stdio_server() as (incoming, outgoing):
            try:
                await low.run(incoming, outgoing, low.create_initialization_options())
            finally:
                if done.cancel_called:
                    sys.stderr.flush()
                    os._exit(0)


async def _until_told(done: anyio.CancelScope) -> None:
    """SIGTERM, SIGINT and SIGHUP end the server the way the end of stdin does."""
    if sys.platform == "win32":
        return
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        async for _ in received:
            done.cancel()
            return
