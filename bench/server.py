"""How soon the MCP server is ready, how fast it answers, and whether it grows.

``python bench/server.py [--rounds 7] [--calls 300] [--json]``
    ready: seconds from the start of the process to the answer to ``initialize``, in turns with the smallest server
    that can be made with the same SDK; the bar is 1.5 times that. Also: which heavy modules it imports (none), seconds
    per call of the light tools over stdio, and memory, file descriptors and threads before and after the calls.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
BAR = 1.5
BARE = """
from mcp.server import MCPServer
server = MCPServer("bare", version="1")
@server.tool()
def add(a: int, b: int) -> int:
    "Add."
    return a + b
server.run("stdio")
"""
OURS = ("-m", "oomdoctor_mcp", "--root", str(REPOSITORY / "examples"))
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "numpy", "matplotlib", "bitsandbytes")
CALLS: dict[str, dict[str, Any]] = {
    "diagnose_oom": {"traceback_path": "flux-12gb/traceback.txt", "script_path": "flux-12gb/script.py"},
    "rewrite_script": {"script_path": "flux-12gb/script.py", "strategy": "model_offload+vae_tiling"},
}


class Wire:
    """A server on pipes and the least client there can be."""

    def __init__(self, *argv: str) -> None:
        roots = os.pathsep.join(str(REPOSITORY / name) for name in ("tools", "server"))
        self.process = subprocess.Popen(
            [sys.executable, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": roots},
        )

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """One request and its answer."""
        self.send({"id": 1, "method": method, "params": params})
        assert self.process.stdout
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        if "error" in answer or answer["result"].get("isError"):
            raise RuntimeError(f"{method} {params}: {answer}")
        return answer

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def ready(self) -> None:
        about = {"name": "bench", "version": "1"}
        self.ask("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about})
        self.send({"method": "notifications/initialized"})

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def seconds_to_ready(*argv: str) -> float:
    start = time.perf_counter()
    server = Wire(*argv)
    server.ready()
    took = time.perf_counter() - start
    server.close()
    return took


def readiness(rounds: int) -> dict[str, Any]:
    """The least of ``rounds`` each, taken in turns: what else the machine does can only add."""
    bare, ours = [], []
    for _ in range(rounds):
        bare.append(seconds_to_ready("-c", BARE))
        ours.append(seconds_to_ready(*OURS))
    return {"bare_s": min(bare), "ours_s": min(ours), "ratio": min(ours) / min(bare), "bar": BAR}


def heavy_modules() -> list[str]:
    """Heavy modules that building the server imports."""
    program = (
        "import sys, json; from oomdoctor_mcp.app import build; from oomdoctor_mcp.config import Config; "
        f"build(Config(roots=())); print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    )
    roots = os.pathsep.join(str(REPOSITORY / name) for name in ("tools", "server"))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, env={**os.environ, "PYTHONPATH": roots}
    )
    found: list[str] = json.loads(done.stdout)
    return found


def working(calls: int) -> dict[str, Any]:
    """Milliseconds per call of the light tools, and the process before and after them."""
    server = Wire(*OURS)
    server.ready()
    process = psutil.Process(server.process.pid)
    took: dict[str, list[float]] = {name: [] for name in CALLS}

    def call(times: int) -> None:
        for index in range(times):
            name = list(CALLS)[index % len(CALLS)]
            start = time.perf_counter()
            server.ask("tools/call", {"name": name, "arguments": CALLS[name]})
            took[name].append(time.perf_counter() - start)

    def size() -> dict[str, int]:
        fds = process.num_fds() if hasattr(process, "num_fds") else 0
        return {"rss_bytes": process.memory_info().rss, "fds": fds, "threads": process.num_threads()}

    call(60)  # caches and late imports
    before = size()
    call(calls)
    after = size()
    server.close()
    median = {name: statistics.median(seconds) * 1000 for name, seconds in took.items()}
    return {"calls": calls, "median_ms": median, "before": before, "after": after}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    found = {"ready": readiness(given.rounds), "heavy_modules": heavy_modules(), "working": working(given.calls)}
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        ready, work = found["ready"], found["working"]
        print(
            f"ready: {ready['ours_s']:.2f} s, bare server {ready['bare_s']:.2f} s: {ready['ratio']:.2f}x (bar {BAR}x)"
        )
        print(f"heavy modules imported: {', '.join(found['heavy_modules']) or 'none'}")
        for name, milliseconds in work["median_ms"].items():
            print(f"{name}: {milliseconds:.1f} ms a call")
        for what in ("rss_bytes", "fds", "threads"):
            print(f"{what} after 60 calls and {work['calls']} more: {work['before'][what]} -> {work['after'][what]}")
    return 0 if found["ready"]["ratio"] <= BAR and not found["heavy_modules"] else 1


if __name__ == "__main__":
    sys.exit(main())
