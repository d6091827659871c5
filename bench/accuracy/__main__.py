"""Published peaks against the virtual card's: ``python bench/accuracy``.

Each published row that can be written as a script is run on a virtual card of the same architecture without a limit;
printed are the published figure, ours and the error, with the reason where a row is left out. Errors are signed:
negative means that we predict less than was measured. Needs the published data; prints that it is absent and ends with
0 where it is not.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(HERE)]

from oomdoctor.doctor import Doctor
from oomdoctor.hardware import card, target_for
from oomdoctor.trial.runner import UNLIMITED_BYTES
from oomdoctor.trial.zygote import card_dict
from phrases import Unexpressed
from report import record, report
from rivals import RIVALS
from rows import Cell, cell, rows

CACHE = ROOT / "bench" / ".cache" / "accuracy"
GIB = 1 << 30
LARGE = 5.0
"""Errors above this many percent get their mechanism printed."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="only rows whose id contains this")
    parser.add_argument("--skip", default="", help="no rows whose model contains this")
    parser.add_argument("--cached", action="store_true", help="only runs that are on disk already")
    parser.add_argument("--fresh", action="store_true", help="run again what older sources made")
    parser.add_argument("--json", type=Path, help="write every row to this file")
    parser.add_argument("--record", type=Path, help="write a line per row and the summary to this file")
    options = parser.parse_args()
    published = rows()
    if not published:
        print("the published measurements are not at hand; nothing to compare")
        return 0
    cells: list[Cell] = []
    left_out: collections.Counter[str] = collections.Counter()
    for row in published:
        if options.rows not in row["id"] or (options.skip and options.skip in row["model"]):
            continue
        try:
            cells.append(cell(row))
        except Unexpressed as reason:
            left_out[str(reason)] += 1
    results = [r for c in cells if (r := judge(c, options)) is not None]
    report(results, left_out, len(published))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if options.record:
        options.record.write_text(record(results, left_out))
    return 0


def judge(c: Cell, options: argparse.Namespace) -> dict[str, Any] | None:
    answer = run(c, options)
    if answer is None:
        return None
    base = {"row": c.row, "card": c.card, "metric": c.metric, "families": sorted(c.families),
            "confidence": c.confidence, "published": c.published}  # fmt: skip
    if answer["outcome"] != "ok":
        last = (answer.get("error") or "?").strip().splitlines()[-1][:100]
        print(f"{c.row:28} did not run: {last}")
        return {**base, "failed": last}
    predicted = c.predicted(answer)
    error = 100 * (predicted / c.published - 1)
    print(
        f"{c.row:28} {c.card:15} {c.metric:10} {c.published / GIB:8.3f} {predicted / GIB:8.3f} {error:+7.2f} %  "
        f"{', '.join(sorted(c.families))}",
        flush=True,
    )
    if abs(error) > LARGE:
        print(f"{'':28} why: {c.explanation() or 'not explained'}")
    rivals = {}
    if c.families == {"resident"}:
        weights = int(answer["output_tail"].rsplit("WEIGHTS", 1)[1].split()[0])
        rivals = {name: rule(weights, c.source) / c.published - 1 for name, rule in RIVALS.items()}
    seconds = c.predicted_seconds(answer)
    return {**base, "predicted": predicted, "error_percent": error, "rivals": rivals, "why": c.explanation(),
            "changes": list(c.changes), "model": c.model, "seconds": c.seconds, "predicted_seconds": seconds}  # fmt: skip


_doctor: Doctor | None = None


def run(c: Cell, options: argparse.Namespace) -> dict[str, Any] | None:
    global _doctor
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / (hashlib.sha256(f"{c.card}\n{c.source}".encode()).hexdigest()[:20] + ".json")
    made_by = sources()
    if file.exists():
        kept = json.loads(file.read_text())
        if not options.fresh or kept["made_by"] == made_by:
            return dict(kept)
    if options.cached:
        return None
    if _doctor is None:
        _doctor = Doctor(target=target_for(card("RTX 4090"), ram_bytes=512 * GIB))
        _doctor.__enter__()
    chosen = card(c.card)
    request = {
        "source": c.source, "path": "row.py", "ram_bytes": None,
        "cards": [card_dict(chosen, total_bytes=UNLIMITED_BYTES)],
    }  # fmt: skip
    started = time.perf_counter()
    answer = _doctor.zygote.run(request, timeout=900.0)
    wanted = ("outcome", "error", "peak_allocated_bytes", "peak_reserved_bytes", "context_bytes", "output_tail",
              "seconds", "peak_host_bytes", "stages")  # fmt: skip
    kept = {"made_by": made_by, "wall": time.perf_counter() - started, **{k: answer.get(k) for k in wanted}}
    file.write_text(json.dumps(kept))
    return kept


def sources() -> str:
    """Digest of what a virtual run's figures depend on."""
    digest = hashlib.sha256()
    for folder in ("vgpu", "loading"):
        for path in sorted((ROOT / "tools" / "oomdoctor" / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    raise SystemExit(main())
