"""The server as clients start it: a process on pipes. However it ends, nothing of it stays."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from mcp import Client, StdioServerParameters

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent
STAND_IN = str(HERE / "stand_in.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


class Wire:
    """A client made of nothing but lines of JSON."""

    def __init__(self, *argv: str, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment or ENVIRONMENT,
        )

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def start(self) -> dict[str, Any]:
        self.send(HELLO)
        answer = self.receive()
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def call(self, tool: str, **arguments: Any) -> None:
        self.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):  # a full pipe that nobody reads any more
                stream.close()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def wire(root: Path, scratch: Path) -> Iterator[Any]:
    started: list[Wire] = []

    def start(mode: str, *more: str) -> Wire:
        made = Wire(STAND_IN, mode, str(root), *more, environment={**ENVIRONMENT, "TMPDIR": str(scratch)})
        started.append(made)
        made.start()
        return made

    yield start
    for each in started:
        each.close()


def wait_until(condition: Any, seconds: float = 8.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@pytest.mark.parametrize("ending", ["eof", "SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"])
async def test_no_child_survives_the_server(wire: Any, script: str, scratch: Path, ending: str):
    server = wire("slow")
    server.call("fix_oom", script=script, wait_s=60)
    tree = psutil.Process(server.process.pid)
    assert wait_until(lambda: tree.children(recursive=True))
    children = tree.children(recursive=True)
    if ending == "eof":
        server.process.stdin.close()
    else:
        server.process.send_signal(getattr(signal, ending))
    assert wait_until(lambda: gone(children))
    assert server.process.wait(timeout=10) == (-signal.SIGKILL if ending == "SIGKILL" else 0)
    if ending != "SIGKILL":
        assert not list(scratch.glob("oom-doctor-mcp-*")), "the private folder is removed"


async def test_a_cancelled_request_ends_its_child(wire: Any, script: str):
    server = wire("family")
    server.call("fix_oom", script=script, wait_s=60)
    tree = psutil.Process(server.process.pid)
    assert wait_until(lambda: len(tree.children(recursive=True)) >= 3)
    children = tree.children(recursive=True)
    server.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
    assert wait_until(lambda: gone(children))
    assert server.process.poll() is None


async def test_stray_prints_never_reach_the_wire(wire: Any, traceback: str):
    server = wire("ok", "print")
    server.call("diagnose_oom", traceback=traceback)
    answer = server.receive()
    assert answer["id"] == 1 and answer["result"]["structuredContent"]["is_oom"]


async def test_garbage_on_the_wire_does_not_end_the_server(wire: Any, traceback: str):
    server = wire("ok")
    server.process.stdin.write(b"not json\n\xff\xfe\n{}\n[]\n")
    server.process.stdin.flush()
    server.call("diagnose_oom", traceback=traceback)
    answers = [server.receive() for _ in range(1)]
    while answers[-1].get("id") != 1:
        answers.append(server.receive())
    assert answers[-1]["result"]["structuredContent"]["is_oom"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_sdks_client_over_real_stdio(root: Path, script: str, traceback: str, mode: str):
    parameters = StdioServerParameters(command=sys.executable, args=[STAND_IN, "ok", str(root)], env=ENVIRONMENT)
    async with Client(parameters, mode=mode) as client:
        tools = await client.list_tools()
        cure = await client.call_tool("fix_oom", {"script": script, "traceback": traceback, "gpu": "RTX 3060"})
    assert len(tools.tools) == 7
    assert cure.structured_content["trial"]["outcome"] == "ok"


async def test_the_real_command_starts_it(root: Path, traceback: str):
    """``python -m oomdoctor_mcp`` as a client config has it, without our stand-in."""
    arguments = ["-m", "oomdoctor_mcp", "--root", str(root)]
    parameters = StdioServerParameters(command=sys.executable, args=arguments, env=ENVIRONMENT)
    async with Client(parameters) as client:
        answer = await client.call_tool("diagnose_oom", {"traceback": traceback})
    assert answer.structured_content["is_oom"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--root", "/nonexistent"], "not a folder"), (["--bogus"], "--help"), (["--timeout", "0"], "above 0")],
)
async def test_bad_options_end_with_status_2_and_a_sentence(arguments: list[str], words: str):
    done = subprocess.run(
        [sys.executable, "-m", "oomdoctor_mcp", *arguments], capture_output=True, env=ENVIRONMENT, timeout=60
    )
    assert done.returncode == 2 and not done.stdout
    assert words in done.stderr.decode() and "Traceback" not in done.stderr.decode()


async def test_ready_about_as_fast_as_a_bare_server():
    """At most 1.5 times a bare server of the SDK, in processor time, which other work on the machine does not stretch."""

    def ready(*argv: str) -> float:
        server = Wire(*argv)
        server.start()
        taken = psutil.Process(server.process.pid).cpu_times()
        server.close()
        return taken.user + taken.system

    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(3):
        times["bare"].append(ready(str(HERE / "bare.py")))
        times["ours"].append(ready("-m", "oomdoctor_mcp"))
    assert min(times["ours"]) <= 1.5 * min(times["bare"]), times


async def test_no_torch_in_the_server(tmp_path: Path):
    """After the light tools were used, too."""
    program = """
import sys, anyio, json
from mcp import Client
from oomdoctor_mcp.app import build
from oomdoctor_mcp.config import Config

async def main():
    async with Client(build(Config(roots=()))) as client:
        await client.list_tools()
        await client.call_tool("diagnose_oom", {"traceback": "torch.OutOfMemoryError: CUDA out of memory."})
        await client.call_tool("detect_hardware", {})
        script = "from diffusers import FluxPipeline\\np = FluxPipeline.from_pretrained('x')\\np('a')\\n"
        await client.call_tool("rewrite_script", {"script": script, "strategy": "vae_tiling"})
        for name in ("gpus", "models", "techniques", "reports"):
            await client.read_resource("oomdoctor://" + name)
anyio.run(main)
heavy = ("torch", "diffusers", "transformers", "accelerate", "numpy", "bitsandbytes", "matplotlib")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=ENVIRONMENT, check=True, timeout=120
    )
    assert json.loads(done.stdout) == []


async def test_hundreds_of_calls_do_not_make_it_grow(wire: Any, script: str, traceback: str):
    server = wire("ok")
    process = psutil.Process(server.process.pid)

    def calls(number: int) -> None:
        for index in range(number):
            if index % 2:
                server.call("rewrite_script", script=script, strategy="model_offload")
            else:
                server.call("diagnose_oom", traceback=traceback, script=script)
            assert "result" in server.receive()

    def size() -> tuple[int, int, int]:
        return process.memory_info().rss, process.num_fds(), process.num_threads()

    calls(60)
    before = size()
    calls(300)
    after = size()
    assert after[0] - before[0] < 12 << 20, (before, after)
    assert after[1] <= before[1] + 2 and after[2] <= before[2] + 4, (before, after)


async def test_ten_clients_at_once(serve: Any, script: str, traceback: str):
    server = serve("ok")
    finished = []

    async def one() -> None:
        async with Client(server) as client:
            for _ in range(5):
                answer = await client.call_tool("diagnose_oom", {"traceback": traceback, "script": script})
                assert answer.structured_content["is_oom"]
            answer = await client.call_tool("verify_script", {"script": script})
            finished.append(answer.structured_content["outcome"])

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(one)
    assert finished == ["ok"] * 10


async def test_what_a_killed_server_left_is_swept(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    from oomdoctor_mcp.scratch import Scratch, sweep

    alive = Scratch(scratch)
    dead = Path(tempfile.mkdtemp(prefix="oom-doctor-mcp-", dir=scratch))
    (dead / "in-use").touch()
    other = Path(tempfile.mkdtemp(prefix="something-else-", dir=scratch))
    assert sweep(scratch) == [dead]
    assert alive.folder.exists() and other.exists() and not dead.exists()
    alive.close()
    assert not alive.folder.exists()


def inspector() -> list[str] | None:
    """The MCP Inspector's command line: ``$MCP_INSPECTOR``, ``mcp-inspector`` on the path, or what npx finds without a
    download."""
    if program := os.environ.get("MCP_INSPECTOR") or shutil.which("mcp-inspector"):
        return [program, "--cli"]
    if (npx := shutil.which("npx")) is None:
        return None
    argv = [npx, "--no-install", "@modelcontextprotocol/inspector", "--cli"]
    tried = subprocess.run([*argv, "--help"], capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    return argv if tried.returncode == 0 else None


async def test_the_inspector_as_an_independent_client(root: Path, traceback: str):
    argv = inspector()
    if argv is None:
        pytest.skip("npx or @modelcontextprotocol/inspector is not installed")
    program = [sys.executable, STAND_IN, "ok", str(root)]

    def ask(*more: str) -> dict[str, Any]:
        done = subprocess.run([*argv, *program, *more], capture_output=True, env=ENVIRONMENT, timeout=180)
        return json.loads(done.stdout)

    assert len(ask("--method", "tools/list")["tools"]) == 7
    called = ("--method", "tools/call", "--tool-name")
    diagnosed = ask(*called, "diagnose_oom", "--tool-arg", f"traceback={traceback}")
    assert diagnosed["structuredContent"]["is_oom"] and not diagnosed.get("isError")
    cured = ask(*called, "fix_oom", "--tool-arg", "script_path=flux.py", "gpu=RTX 3060", "ram_gib=64")
    assert cured["structuredContent"]["trial"]["outcome"] == "ok"
    assert ask(*called, "fix_oom", "--tool-arg", "script_path=../../etc/passwd")["isError"]
