"""The configurations in the README parse, say the same, and their command really starts a server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SERVE = ["--from", "/path/to/oom-doctor", "oom-doctor", "serve", "--python", "/path/to/your/python"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def configurations() -> dict[str, dict[str, Any]]:
    """Key of the client's file -> what is configured for our server."""
    found = {}
    for key, kind, text in re.findall(r"<!-- client: (\w+) -->\n```(\w+)\n(.*?)```", README, re.S):
        if kind == "json":
            found[key] = json.loads(text)[key]["oom-doctor"]
        elif sys.version_info >= (3, 11):
            import tomllib

            found[key] = tomllib.loads(text)[key]["oom-doctor"]
    return found


def test_all_clients_start_the_same_server():
    known = configurations()
    assert set(known) >= {"mcpServers", "servers"}
    for entry in known.values():
        assert (entry["command"], entry["args"]) == ("uvx", SERVE)
    assert "uvx " + " ".join(SERVE) in README, "the line for `claude mcp add`"


def test_codex_waits_longer_than_our_longest_answer():
    codex = configurations().get("mcp_servers")
    if codex is not None:
        assert codex["startup_timeout_sec"] >= 30 and codex["tool_timeout_sec"] >= 60


@pytest.mark.anyio
async def test_the_command_serves_over_stdio():
    """The same arguments from `serve` on, with this interpreter in the place of `uvx`."""
    arguments = ["-m", "oomdoctor.cli", "serve", "--python", sys.executable]
    paths = ":".join(str(ROOT / part) for part in ("tools", "server", "evals"))
    started = StdioServerParameters(command=sys.executable, args=arguments, env={"PYTHONPATH": paths}, cwd=str(ROOT))
    async with Client(started) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
    assert {"fix_oom", "diagnose_oom", "verify_script"} <= names


@pytest.mark.slow
def test_the_plugin_is_accepted_by_its_client():
    program = shutil.which("claude")
    if program is None:
        pytest.skip("the claude command is not installed")
    for part in (".", ".claude-plugin/plugin.json"):
        done = subprocess.run(
            [program, "plugin", "validate", part, "--strict"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_installed_plugin_connects(tmp_path: Path):
    """As a user would: marketplace, install, and the client's own word that the server answers."""
    program, runner = shutil.which("claude"), shutil.which("uvx")
    if program is None or runner is None:
        pytest.skip("needs the commands claude and uvx")
    home = {**os.environ, "HOME": str(tmp_path), "CLAUDE_CONFIG_DIR": str(tmp_path / "claude"), "MCP_TIMEOUT": "120000"}

    def claude(*arguments: str) -> str:
        done = subprocess.run(
            [program, *arguments], cwd=tmp_path, env=home, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = [runner, "--from", str(ROOT), "oom-doctor", "--version"]
    if subprocess.run(first, env=home, capture_output=True, timeout=300).returncode:
        pytest.skip("uvx cannot install the server here")
    claude("plugin", "marketplace", "add", str(ROOT))
    claude("plugin", "install", "diffusers-oom-doctor@oom-doctor")
    (line,) = [line for line in claude("mcp", "list").splitlines() if "oom-doctor serve" in line]
    assert "Connected" in line


@pytest.mark.slow
def test_the_skill_is_found_by_the_skills_command():
    program = shutil.which("skills")
    if program is None:
        pytest.skip("the skills command is not installed")
    done = subprocess.run(
        [program, "add", str(ROOT), "--list"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0 and "diffusers-oom-doctor" in done.stdout
