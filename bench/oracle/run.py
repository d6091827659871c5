"""Hold the allocator against PyTorch's own: every scenario, several seeds, equal after every step.

    python bench/oracle/run.py --cuda-python PATH [--scenario NAME ...] [--seeds 5] [--steps 10000] [--record DIR]
                               [--summary bench/recorded/allocator.json]

PATH is an interpreter with a CUDA build of torch; no GPU is needed. The stub libraries are built with ``cc`` into a
temporary folder (or ``--build DIR``). With ``--record`` the sequences and PyTorch's answers are written as fixtures,
with ``--summary`` how many steps of which scenario were equal, by torch version.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from requests import scenarios

HERE = Path(__file__).resolve().parent
# Settings of the pinned allocator, with the first torch version that has them.
PINNED = {
    "": (2, 6),
    "pinned_use_cuda_host_register:True": (2, 6),
    "pinned_use_cuda_host_register:True,pinned_num_register_threads:4": (2, 6),
    "pinned_reserve_segment_size_mb:64": (2, 13),
    "pinned_max_cached_size_mb:16": (2, 13),
    "pinned_max_round_threshold_mb:4": (2, 13),
    "pinned_free_catch_all:True": (2, 13),
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


def play(command: list[str], env: dict[str, str]) -> Iterator[dict[str, object]]:
    """The answers of a comparison, one per scenario and seed, as they come."""
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("{"):
                yield json.loads(line)


class Report:
    """Counts what was equal, and prints a line per scenario."""

    def __init__(self, version: str, seeds: int, steps: int) -> None:
        self.version, self.seeds, self.steps = version, seeds, steps
        self.results: dict[str, list[dict[str, object]]] = {}
        self.bad = 0

    def add(self, name: str, result: dict[str, object]) -> None:
        results = self.results.setdefault(name, [])
        results.append(result)
        if len(results) == self.seeds:
            self._print(name, results)

    def expect(self, names: list[str]) -> None:
        """A scenario of which a seed said nothing has crashed, which counts as a difference."""
        for name in names:
            results = self.results.get(name, [])
            if len(results) < self.seeds:
                results.append({"differs": "a run ended without a result"})
                self._print(name, results)

    def _print(self, name: str, results: list[dict[str, object]]) -> None:
        wrong = [result for result in results if "differs" in result]
        failures = sum(int(str(result.get("failures", 0))) for result in results)
        took = sum(float(str(result.get("seconds", 0))) for result in results)
        verdict = "DIFFERS" if wrong else "equal"
        print(
            f"torch {self.version} {name:34} {verdict:8} {len(results)} x {self.steps} steps, {failures} failures, "
            f"{took:.0f} s",
            flush=True,
        )
        for result in wrong:
            print("   ", json.dumps(result["differs"])[:900], flush=True)
        self.bad += len(wrong)


def summarise(path: Path, report: Report) -> None:
    """Add this version's scenarios to the file: steps that were compared, requests that were refused, equal or not."""
    known = json.loads(path.read_text()) if path.exists() else {}
    rows = known.setdefault(report.version, {})
    for name, results in sorted(report.results.items()):
        rows[name] = {
            "conf": str(results[0].get("conf", "")),
            "seeds": len(results),
            "steps_per_seed": report.steps,
            "refusals": sum(int(str(result.get("failures", 0))) for result in results),
            "seeds_equal": sum("differs" not in result for result in results),
        }
    known[report.version] = dict(sorted(rows.items()))
    lines = [
        f'"{version}": {{\n' + ",\n".join(f'  "{name}": {json.dumps(row)}' for name, row in rows.items()) + "\n}"
        for version, rows in sorted(known.items())
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


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
    parser.add_argument("--summary", type=Path, help="file to which the outcome of every scenario is added")
    parser.add_argument("--build", help="where the stub libraries are built and kept")
    options = parser.parse_args()
    python = options.cuda_python
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        build_dir = Path(options.build or scratch / "build").resolve()
        build(Path(python), build_dir)
        major, minor, cuda = torch_version(Path(python), build_dir)
        more = {"ORACLE_CUDA": str(cuda), "TORCH_CPP_LOG_LEVEL": "ERROR"}
        record = ["--record", str(scratch)] if options.record else []
        report = Report(f"{major}.{minor}", options.seeds, options.steps)
        names = [
            scenario.name
            for scenario in scenarios()
            if scenario.since <= (major, minor) and (not options.scenario or scenario.name in options.scenario)
        ]
        if names:
            command = [python, str(HERE / "compare.py"), ",".join(names), str(options.seeds), str(options.steps)]
            for result in play([*command, *record], environment(build_dir, scenarios()[0].vram, **more)):
                report.add(str(result["scenario"]), result)
        for conf, since in PINNED.items():
            if since > (major, minor) or (options.scenario and "pinned" not in options.scenario):
                continue
            command = [python, str(HERE / "compare_pinned.py"), str(options.seeds), str(options.steps)]
            if options.record and not conf:
                command += ["--record", str(scratch / "pinned.json")]
            # Registered pages are touched one by one: real memory, so less of it.
            limit = (256 << 20) if "host_register" in conf else (8 << 30)
            env = environment(build_dir, 8 << 30, conf, ORACLE_PINNED=str(limit), **more)
            names.append(f"pinned {conf}".strip())
            for result in play(command, env):
                report.add(names[-1], result)
        report.expect(names)
        bad = report.bad
        if options.summary:
            summarise(options.summary, report)
        if options.record and not bad:
            collect(scratch, options.record, f"{major}.{minor}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
