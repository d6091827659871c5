"""The cases that people reported, rebuilt as scripts: is each one cured, and is the thread's own cure among the options?

    python bench/reported.py [NAME ...] [--json FILE]

Each folder of ``examples/reported`` holds a script, the message where it was given, and ``case.json``: the thread, the
card, the RAM, the techniques of the cures that the thread names, and the known model that an unknown one is built like. Every case is given to ``oom-doctor fix``, whose
patched script must finish on the virtual card. The exit status is 1 when a case is not cured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "examples" / "reported"
sys.path.insert(0, str(ROOT / "tools"))

from oomdoctor.units import gib
from oomdoctor.values import Strategy


def techniques(strategy: dict[str, Any] | None) -> set[str]:
    """Names of the techniques of a printed Strategy."""
    return {application["technique"] for application in (strategy or {}).get("applications", ())}


def cure(folder: Path) -> dict[str, Any]:
    """What ``oom-doctor fix`` makes of a case: a row of the table."""
    case = json.loads((folder / "case.json").read_text("utf-8"))
    command = [sys.executable, "-m", "oomdoctor.cli", "fix", "script.py", "--gpu", case["gpu"]]
    command += ["--ram", str(case["ram_gib"]), "--json"]
    if (folder / "traceback.txt").exists():
        command += ["--traceback", "traceback.txt"]
    command += [f"--like={model}={known}" for model, known in case.get("like", {}).items()]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    row = {"case": folder.name, "gpu": case["gpu"], "ram_gib": case["ram_gib"], "seconds": round(seconds)}
    if done.returncode not in (0, 1):
        return row | {"cured": False, "said": done.stderr.strip()[-300:]}
    answer = json.loads(done.stdout)
    before, after = answer["original_trial"] or {}, answer["trial"] or {}
    offered = [techniques(option["strategy"]) for option in answer["alternatives"]]
    named = set(case["cured_by"])
    return row | {
        "before": before.get("outcome"),
        "cured": done.returncode == 0 and after.get("outcome") == "ok",
        "strategy": Strategy.model_validate(answer["strategy"]).id if answer["strategy"] else "",
        "vram": after.get("peak_reserved_bytes"),
        "host": after.get("peak_host_bytes"),
        "thread_cure_offered": any(named & of for of in [techniques(answer["strategy"]), *offered]),
        "said": "" if done.returncode == 0 else answer["why"],
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    options = parser.parse_args()
    rows = []
    print("| case | card, RAM GiB | before | cured by | VRAM GiB | RAM GiB | the thread's cure is offered | s |")
    print("|---|---|---|---|---|---|---|---|")
    for folder in sorted(p for p in CASES.iterdir() if (p / "case.json").exists()):
        if options.names and folder.name not in options.names:
            continue
        row = cure(folder)
        rows.append(row)
        cells = (
            row["case"],
            f"{row['gpu']}, {row['ram_gib']}",
            row.get("before") or "?",
            f"`{row['strategy']}`" if row["cured"] else f"not cured: {row['said']}",
            gib(row["vram"]) if row.get("vram") else "",
            gib(row["host"]) if row.get("host") else "",
            "yes" if row.get("thread_cure_offered") else "no",
            str(row["seconds"]),
        )
        print("| " + " | ".join(cells) + " |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    cured = sum(row["cured"] for row in rows)
    print(f"\n{cured} of {len(rows)} cured; the thread's own cure among the options of "
          f"{sum(bool(row.get('thread_cure_offered')) for row in rows)}")  # fmt: skip
    return 0 if rows and cured == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
