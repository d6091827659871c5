"""The whole way with nothing pretended: client, server, child, command line, virtual card, cure."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from mcp import Client, StdioServerParameters
from oomdoctor_mcp.app import build
from oomdoctor_mcp.config import Config

pytest.importorskip("diffusers")
pytestmark = [pytest.mark.anyio, pytest.mark.slow]
EXAMPLE = Path(__file__).parents[2] / "examples" / "flux-12gb"
MACHINE = {"gpu": "RTX 3060", "ram_gib": 64}
STAGES = {"starting", "load", "place", "denoise", "vae_decode", "planning", "proving"}
"""Told by every cure; ``measuring`` is not, as a measurement made before is taken from the cache."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


async def to_the_end(client: Client, tool: str, arguments: dict[str, Any], heard: list[str]) -> dict[str, Any]:
    """Calls ``tool`` and goes on by job id, as an assistant does."""

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")

    for _ in range(20):
        answer = await client.call_tool(tool, arguments, progress_callback=listen)
        assert not answer.is_error, answer.content[0].text
        found: dict[str, Any] = answer.structured_content
        if found["status"] == "done":
            return found
        arguments = {"job_id": found["job_id"]}
    raise AssertionError("never done")


def is_a_cure(found: dict[str, Any], heard: list[str]) -> None:
    assert found["diagnosis"]["is_oom"] and found["original_trial"]["outcome"] == "oom"
    assert found["trial"]["outcome"] == "ok" and found["trial"]["ran"] == "call"
    usable = found["trial"]["usable_bytes"]
    assert 0 < found["trial"]["peak_reserved_bytes"] <= usable < 12 << 30
    assert found["trial"]["peak_host_bytes"] <= 64 << 30
    compile(found["patch"]["source"], "patched.py", "exec")
    assert found["patch"]["diff"].count("\n+") >= 2
    assert found["strategy_id"] and found["strategy_id"] in found["summary"]
    assert {words.split(":")[0].split(" ")[0] for words in heard} >= STAGES


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_fix_cures_the_flux_example_given_as_text(mode: str):
    heard: list[str] = []
    given = {"script": (EXAMPLE / "script.py").read_text(), "traceback": (EXAMPLE / "traceback.txt").read_text()}
    async with Client(build(Config(roots=())), mode=mode) as client:
        found = await to_the_end(client, "fix_oom", given | MACHINE, heard)
        report = json.loads((await client.read_resource(found["report"])).contents[0].text)
    is_a_cure(found, heard)
    assert report["patch"]["source"] == found["patch"]["source"]


async def test_the_same_over_stdio_with_paths(tmp_path: Path):
    shutil.copytree(EXAMPLE, tmp_path / "flux")
    heard: list[str] = []
    arguments = ["-m", "oomdoctor.cli", "serve", "--root", str(tmp_path)]
    given = {"script_path": "flux/script.py", "traceback_path": "flux/traceback.txt", "wait_s": 5}
    async with Client(StdioServerParameters(command=sys.executable, args=arguments, env=ENVIRONMENT)) as client:
        found = await to_the_end(client, "fix_oom", given | MACHINE, heard)
        patched = {"strategy": found["strategy_id"], "script_path": "flux/script.py", "output_path": "flux/patched.py"}
        written = await client.call_tool("rewrite_script", patched)
        trial = await to_the_end(client, "verify_script", {"script_path": "flux/patched.py"} | MACHINE, heard)
    is_a_cure(found, heard)
    assert (tmp_path / "flux" / "patched.py").read_text() == found["patch"]["source"], written
    assert trial["outcome"] == "ok"
    assert trial["peak_reserved_bytes"] == found["trial"]["peak_reserved_bytes"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the middle of a cure."""
    process = subprocess.Popen(
        [sys.executable, "-m", "oomdoctor_mcp", "--root", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**ENVIRONMENT, "TMPDIR": str(tmp_path)},
    )
    version = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    given = {"script": (EXAMPLE / "script.py").read_text(), "wait_s": 300} | MACHINE
    send(process, id=0, method="initialize", params=version)
    process.stdout.readline()
    send(process, method="notifications/initialized")
    send(process, id=1, method="tools/call", params={"name": "fix_oom", "arguments": given})
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def send(process: subprocess.Popen[bytes], **message: Any) -> None:
    assert process.stdin
    process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    process.stdin.flush()


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


async def family_of(process: subprocess.Popen[bytes], members: int) -> list[psutil.Process]:
    """The server's descendants, once there are that many: command line, child with torch, fork that runs."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = psutil.Process(process.pid).children(recursive=True)
        if len(found) >= members:
            return found
        await anyio.sleep(0.05)
    raise AssertionError("the job did not start")


@pytest.mark.parametrize(
    ("ending", "members"),
    [("cancel", 3), ("SIGKILL", 3), ("SIGKILL", 2), ("SIGTERM", 2), ("eof", 2)],
    ids=["cancelled in a trial", "killed in a trial", "killed while it imports", "told while it imports", "left"],
)
async def test_no_process_stays(server: subprocess.Popen[bytes], ending: str, members: int):
    family = await family_of(server, members)
    if ending == "cancel":
        send(server, method="notifications/cancelled", params={"requestId": 1})
    elif ending == "eof":
        assert server.stdin
        server.stdin.close()
    else:
        server.send_signal(getattr(signal, ending))
    deadline = time.monotonic() + 10
    while alive(family) and time.monotonic() < deadline:
        await anyio.sleep(0.05)
    assert not alive(family), [p.cmdline() for p in alive(family)]
    if ending == "cancel":
        assert server.poll() is None


HOSTILE = """\
import os, pathlib, socket, sys
from diffusers import FluxPipeline

found = []
for name, attempt in {{
    "write": lambda: pathlib.Path({marker!r}).write_text("here"),
    "read": lambda: pathlib.Path({secret!r}).read_text(),
    "network": lambda: socket.create_connection(("127.0.0.1", {port}), timeout=2),
    "process": lambda: os.system("touch " + {marker!r}) and 1 / 0,
    "token": lambda: os.environ["HF_TOKEN"],
}}.items():
    try:
        found.append(f"{{name}} gave {{attempt()!r}}")
    except BaseException as error:
        found.append(f"{{name}} was refused: {{type(error).__name__}}")
raise RuntimeError("; ".join(found))
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")
pipe("a cat")
"""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """The file it wants to leave behind, and a script that tries all it can."""
    import socket

    marker, secret = tmp_path / "marker", tmp_path / "secret.txt"
    secret.write_text("hunter2")
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        yield marker, HOSTILE.format(marker=str(marker), secret=str(secret), port=port)


async def test_a_generated_call_runs_none_of_a_hostile_script(hostile: tuple[Path, str]):
    marker, script = hostile
    async with Client(build(Config(roots=()))) as client:
        found = await to_the_end(client, "verify_script", {"script": script} | MACHINE, [])
    assert found["ran"] == "call" and found["outcome"] in ("ok", "oom"), "the exception at its top is not part of it"
    assert "hunter2" not in json.dumps(found) and not marker.exists()


async def test_a_hostile_script_gets_nothing_done_in_the_sandbox(hostile: tuple[Path, str]):
    from oomdoctor.trial.sandbox import sandbox_available

    if sandbox_available() is None:
        pytest.skip("no sandbox on this machine")
    marker, script = hostile
    async with Client(build(Config(roots=()))) as client:
        found = await to_the_end(client, "verify_script", {"script": script, "run": "script"} | MACHINE, [])
    assert found["ran"] == "script" and found["isolation"] == "sandbox" and found["outcome"] == "error"
    for attempt in ("read", "network", "process", "token"):  # a write may seem to succeed: it goes to scratch
        assert f"{attempt} was refused" in found["error"], found["error"]
    assert "hunter2" not in json.dumps(found) and not marker.exists()
