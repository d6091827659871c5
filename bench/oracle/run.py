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

from requests import scenarios

HERE = Path(__file__).resolve().parent
# Settings of the pinned allocator, with the first torch version that has them.
PINNED = {
    "": (2, 6),
    "pinned_reserve_segment_size_mb:64": (2, 13),
    "pinned_max_cached_size_mb:16": (2, 13),
    "pinned_max_round_threshold_mb:4": (2, 13),
}


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


def play(command: list[str], env: dict[str, str], seeds: int) -> list[dict[str, object]]:
    """The answers of a comparison, one per seed; a crash counts as a difference."""
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if len(lines) < seeds:
        lines.append({"differs": {"crashed": done.stderr[-600:]}})
    return lines


def report(name: str, results: list[dict[str, object]], steps: int, began: float) -> int:
    wrong = [result for result in results if "differs" in result]
    failures = sum(int(str(result.get("failures", 0))) for result in results)
    verdict = "DIFFERS" if wrong else "equal"
    took = time.perf_counter() - began
    print(f"{name:42} {verdict:8} {len(results)} x {steps} steps, {failures} failures, {took:.0f} s", flush=True)
    for result in wrong:
        print("   ", json.dumps(result["differs"])[:900], flush=True)
    return len(wrong)


def collect(scratch: Path, out: Path, version: str) -> None:
    """Write what was recorded as two fixtures: the steps, which all versions share, and this version's answers."""
    shared, answers = {}, {}
    for path in sorted(scratch.glob("*-0.json")):
        run = json.loads(path.read_text())
        name = run.pop("scenario")
        shared[name] = {"steps": run.pop("steps"), **{key: run.pop(key) for key in ("conf", "vram", "outside")}}
        answers[name] = {key: run[key] for key in ("every", "sums", "texts")}
    out.mkdir(parents=True, exist_ok=True)
    known = json.loads((out / "steps.json").read_text()) if (out / "steps.json").exists() else {}
    (out / "steps.json").write_text(json.dumps(dict(sorted({**known, **shared}.items())), indent=1) + "\n")
    path = out / f"answers-{version}.json"
    record = json.loads(path.read_text()) if path.exists() else {"torch": version, "pinned": None, "runs": {}}
    if (scratch / "pinned.json").exists():
        record["pinned"] = json.loads((scratch / "pinned.json").read_text())
    record["runs"] = dict(sorted({**record["runs"], **answers}.items()))
    path.write_text(json.dumps(record, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda-python", required=True)
    parser.add_argument("--scenario", action="append", help="only these; 'pinned' for the pinned allocator")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--record", type=Path, help="folder for fixtures, of seed 0")
    parser.add_argument("--build", help="where the stub libraries are built and kept")
    options = parser.parse_args()
    python = options.cuda_python
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        build_dir = Path(options.build or scratch / "build").resolve()
        build(Path(python), build_dir)
        major, minor, cuda = torch_version(Path(python), build_dir)
        more = {"ORACLE_CUDA": str(cuda), "TORCH_CPP_LOG_LEVEL": "ERROR"}
        record = ["--record", str(scratch)] if options.record else []
        for scenario in scenarios():
            if scenario.since > (major, minor) or (options.scenario and scenario.name not in options.scenario):
                continue
            began = time.perf_counter()
            command = [python, str(HERE / "compare.py"), scenario.name, str(options.seeds), str(options.steps), *record]
            results = play(command, environment(build_dir, scenario.vram, scenario.conf, **more), options.seeds)
            bad += report(f"torch {major}.{minor} {scenario.name}", results, options.steps, began)
        for conf, since in PINNED.items():
            if since > (major, minor) or (options.scenario and "pinned" not in options.scenario):
                continue
            began = time.perf_counter()
            command = [python, str(HERE / "compare_pinned.py"), str(options.seeds), str(options.steps)]
            if options.record and not conf:
                command += ["--record", str(scratch / "pinned.json")]
            env = environment(build_dir, 8 << 30, conf, ORACLE_PINNED=str(8 << 30), **more)
            results = play(command, env, options.seeds)
            bad += report(f"torch {major}.{minor} pinned {conf}", results, options.steps, began)
        if options.record and not bad:
            collect(scratch, options.record, f"{major}.{minor}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
