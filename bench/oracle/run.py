"""Hold the allocator against PyTorch's own: every scenario, several seeds, equal after every step.

    python bench/oracle/run.py --cuda-python PATH [--scenario NAME ...] [--seeds 5] [--steps 10000] [--record DIR]

PATH is an interpreter with a CUDA build of torch; no GPU is needed. The stub libraries are built with ``cc`` into a
temporary folder (or ``--build DIR``). With ``--record`` the sequences and PyTorch's answers are written as fixtures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from requests import Scenario, scenarios

HERE = Path(__file__).resolve().parent


def build(python: Path, out: Path) -> None:
    subprocess.run([HERE / "stub" / "build.sh", python, out], check=True)


def environment(build_dir: Path, vram: int, conf: str = "", nvml: str = "own", **more: str) -> dict[str, str]:
    """The environment in which a CUDA build of torch finds the stub card."""
    paths = [str(build_dir)] + ([str(build_dir / "nvml")] if nvml else [])
    env = {
        **os.environ,
        "LD_PRELOAD": str(build_dir / "stub.so"),
        "LD_LIBRARY_PATH": ":".join(paths),
        "ORACLE_VRAM": str(vram),
        "PYTORCH_CUDA_ALLOC_CONF": conf,
        **more,
    }
    if nvml:
        env["ORACLE_NVML"] = nvml
    return env


def torch_version(python: Path, build_dir: Path) -> tuple[int, int, int]:
    """Major and minor version of torch, and the number the CUDA runtime gives itself."""
    code = "import torch; print(torch.__version__.split('+')[0], torch.version.cuda)"
    text = subprocess.run(
        [python, "-c", code], env=environment(build_dir, 1 << 30), capture_output=True, text=True, check=True
    ).stdout.split()
    major, minor = (int(part) for part in text[0].split(".")[:2])
    cuda = [int(part) for part in text[1].split(".")]
    return major, minor, cuda[0] * 1000 + cuda[1] * 10


def run(scenario: Scenario, options: argparse.Namespace, build_dir: Path, cuda: int) -> list[dict[str, object]]:
    """All seeds of one scenario in one interpreter, each in a fork of its own."""
    command: list[str] = [options.cuda_python, str(HERE / "compare.py"), scenario.name, str(options.seeds)]
    command += [str(options.steps)]
    if options.record:
        command += ["--record", options.record]
    env = environment(build_dir, scenario.vram, scenario.conf, ORACLE_CUDA=str(cuda), TORCH_CPP_LOG_LEVEL="ERROR")
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if len(lines) < options.seeds:
        lines.append({"scenario": scenario.name, "differs": {"crashed": done.stderr[-600:]}})
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuda-python", required=True)
    parser.add_argument("--scenario", action="append")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--record")
    parser.add_argument("--build")
    options = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        build_dir = Path(options.build or scratch).resolve()
        build(Path(options.cuda_python), build_dir)
        major, minor, cuda = torch_version(Path(options.cuda_python), build_dir)
        for scenario in scenarios():
            if scenario.since > (major, minor) or (options.scenario and scenario.name not in options.scenario):
                continue
            began = time.perf_counter()
            results = run(scenario, options, build_dir, cuda)
            wrong = [result for result in results if "differs" in result]
            bad += len(wrong)
            failures = sum(int(str(result.get("failures", 0))) for result in results)
            took = time.perf_counter() - began
            verdict = "DIFFERS" if wrong else "equal"
            print(
                f"torch {major}.{minor} {scenario.name:28} {verdict:8} {len(results)} x {options.steps} steps, "
                f"{failures} failures, {took:.0f} s",
                flush=True,
            )
            for result in wrong:
                print("   ", json.dumps(result["differs"])[:900], flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
