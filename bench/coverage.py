"""Which pipelines run on the virtual GPU under which technique: the catalogue times the techniques.

    python bench/coverage.py [--models WORD ...] [--techniques NAME ...] [--sample N --seed S] [--python PATH] [--out FILE]

Every cell is a generated call of two steps on a card without limit. A cell that a library refuses, by an error that it
raises itself, counts as *refused* and is listed with its words; so does an error that the library runs into, if
``coverage_reasons.py`` says where it comes from. Every other failing cell is listed by its error or operation. With
``--blocks`` a cell that does not finish is tried again with all blocks before it counts. Cells run model by model in one child each, one model of every family first; cells that ``--out`` already
has are not run again, so a stopped bench goes on where it was. Exit status 1 when a cell failed.

``--record FILE`` writes the outcome of every cell of ``--out``, compact, for the repository; ``--print FILE`` shows it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from coverage_cells import TECHNIQUES, Model, Technique, models, written
from coverage_reasons import reason
from cut_catalogue import write as write_cut
from oomdoctor.errors import OomDoctorError
from oomdoctor.hardware import card
from oomdoctor.models import CATALOGUE
from oomdoctor.trial import Zygote, run_virtual
from oomdoctor.trial.runner import UNLIMITED_BYTES

LIBRARIES = re.compile(r'File "[^"]*site-packages/(diffusers|transformers|accelerate|torchao|peft|optimum|xformers)/')
OURS = ("virtual GPU", "UnknownOperation", "UnknownValue", "MissingModel", "escaped", "oomdoctor")


def verdict(outcome: str, error: str | None) -> tuple[str, str]:
    """(``ok``, ``refused`` or ``failed``; the error in one line)."""
    if outcome == "ok":
        return "ok", ""
    text = (error or outcome).strip()
    words = " ".join(re.split(r"\n(?=\S)", text)[-1].split())[:300]
    if outcome != "error" or any(word in words for word in OURS):
        return "failed", words
    frames = re.findall(r'  File "[^"]+", line \d+.*\n(?:    .*\n)*', text)
    last = frames[-1] if frames else ""
    raised = "\n    raise " in last and LIBRARIES.search(last) is not None
    # A method that the class does not have: asked for by the script, missed by the classes' own __getattr__.
    looked_up = [f for f in frames[-3:] if "__getattr__" not in f]
    missing = "AttributeError" in words and "has no attribute" in words and "call.py" in (looked_up or [""])[-1]
    return ("refused" if raised or missing else "failed"), words


def run_cell(zygote: Zygote, model: Model, technique: Technique, timeout: float) -> dict[str, Any] | None:
    """One cell as a row of results; None where the technique has no meaning for the model."""
    made = written(model, technique, dict(zygote.versions))
    if made is None:
        return None
    source, how = made
    started = time.perf_counter()
    row: dict[str, Any] = {"model": model.id, "technique": technique.name, "how": how}
    unlimited = card("h100-80gb").model_copy(update={"total_bytes": UNLIMITED_BYTES})
    try:
        trial = run_virtual(zygote, source, card=unlimited, path="call.py", timeout=timeout)
    except OomDoctorError as error:
        return {**row, "verdict": "failed", "error": str(error)[-1500:], "seconds": time.perf_counter() - started}
    kind, words = verdict(trial.outcome, trial.error)
    if kind == "failed" and reason(technique.name, words) is not None:
        kind = "refused"
    row |= {"verdict": kind, "error": words, "seconds": round(time.perf_counter() - started, 2)}
    if kind == "ok":
        row |= {
            "allocated_gib": round(trial.peak_allocated_bytes / 2**30, 2),
            "host_gib": round(trial.peak_host_bytes / 2**30, 2),
        }
    else:
        row["traceback"] = (trial.error or "")[-3000:]
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Counts per technique."""
    out = [f"{'technique':<24}{'ok':>5}{'refused':>9}{'failed':>8}{'seconds':>9}"]
    for name in dict.fromkeys(r["technique"] for r in rows):
        mine = [r for r in rows if r["technique"] == name]
        count = Counter(r["verdict"] for r in mine)
        seconds = sum(r["seconds"] for r in mine) / len(mine)
        out.append(f"{name:<24}{count['ok']:>5}{count['refused']:>9}{count['failed']:>8}{seconds:>9.1f}")
    total = Counter(r["verdict"] for r in rows)
    out.append(f"{'all':<24}{total['ok']:>5}{total['refused']:>9}{total['failed']:>8}")
    return "\n".join(out)


def grouped(rows: list[dict[str, Any]], kind: str) -> str:
    """The errors of one verdict, each with the cells that ended so."""
    cells: dict[str, list[str]] = {}
    for r in rows:
        if r["verdict"] == kind:
            cells.setdefault(r["error"], []).append(f"{r['model']} x {r['technique']}")
    lines = []
    for error, where in sorted(cells.items(), key=lambda item: -len(item[1])):
        more = f" and {len(where) - 3} more" if len(where) > 3 else ""
        known = reason(where[0].rpartition(" x ")[2], error) if kind == "refused" else None
        why = f"\n    because {known.why}" if known else ""
        lines.append(f"{kind} ({len(where)}): {error}\n    {'; '.join(where[:3])}{more}{why}")
    return "\n".join(lines)


def families_first(found: list[Model]) -> list[Model]:
    """One model of every family (pipelines that share their classes), then the others."""
    seen: set[tuple[str, ...]] = set()
    first, later = [], []
    for model in found:
        family = tuple(sorted(cls for _, cls in model.parts.values()))
        (later if family in seen else first).append(model)
        seen.add(family)
    return first + later


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of an earlier run; the last one of a cell counts."""
    if not file.is_file():
        return []
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return list({(r["model"], r["technique"]): r for r in rows}.values())


def record(rows: list[dict[str, Any]]) -> str:
    """Outcomes as JSON: technique -> verdict -> models; for what is not ok, by the words of the error."""
    cells: dict[str, dict[str, Any]] = {}
    for r in sorted(rows, key=lambda r: (list(TECHNIQUES).index(r["technique"]), r["model"])):
        outcome = cells.setdefault(r["technique"], {"ok": []})
        if r["verdict"] == "ok":
            outcome["ok"].append(r["model"])
        else:
            words = re.sub(r"0x[0-9a-f]+", "0x...", r["error"])[:200]
            outcome.setdefault(r["verdict"], {}).setdefault(words, []).append(r["model"])
    return json.dumps({"versions": installed(), "cells": cells}, indent=1) + "\n"


def installed() -> dict[str, str]:
    """Versions of the libraries that decide what runs."""
    names = ("torch", "diffusers", "transformers", "accelerate", "torchao", "gguf", "peft")
    return {name: version(name) for name in names if find_spec(name) is not None}


def figure(recorded: dict[str, Any]) -> str:
    """Recorded outcomes as the table and lists that a run prints."""
    rows = []
    for technique, outcome in recorded["cells"].items():
        found = [("ok", "", m) for m in outcome["ok"]]
        found += [(k, w, m) for k in ("refused", "failed") for w, ms in outcome.get(k, {}).items() for m in ms]
        rows += [{"technique": technique, "model": m, "verdict": k, "error": w, "seconds": 0.0} for k, w, m in found]
    return "\n\n".join(filter(None, [grouped(rows, "refused"), grouped(rows, "failed"), table(rows)]))


def warm(python: str | None, catalogue: Path, classes: list[str]) -> Zygote:
    """A child that has imported what the cells of a model need."""
    loading = {"catalogue": str(catalogue), "configs": [], "like": {}, "hf_cache": None}
    return Zygote(python, card("h100-80gb"), loading, warm=classes)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[], metavar="WORD", help="only ids that contain one of these")
    parser.add_argument("--techniques", nargs="*", default=["plain"], metavar="NAME", help="'all' for all of them")
    parser.add_argument("--sample", type=int, metavar="N", help="only N cells, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--blocks", type=int, metavar="N", help="cut transformers to N blocks of each kind: much faster"
    )
    parser.add_argument("--python", help="the interpreter that runs the cells")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--out", type=Path, help="write one JSON line per cell to this file")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the outcomes in --out here; run nothing")
    parser.add_argument("--print", type=Path, metavar="FILE", help="show recorded outcomes; run nothing")
    parser.add_argument("--source", action="store_true", help="print the scripts and run nothing")
    options = parser.parse_args()
    names = list(TECHNIQUES) if options.techniques == ["all"] else options.techniques
    cells = [(m, TECHNIQUES[name]) for m in families_first(models(options.models)) for name in names]
    if options.sample:
        drawn = set(random.Random(options.seed).sample(range(len(cells)), min(options.sample, len(cells))))
        cells = [cell for i, cell in enumerate(cells) if i in drawn]
    if options.source:
        for model, technique in cells:
            made = written(model, technique, {})
            print(f"# ---- {model.id} x {technique.name}\n{made[0] if made else '# none'}")
        return 0
    if options.print:
        print(figure(json.loads(options.print.read_text())))
        return 0
    rows = read(options.out) if options.out else []
    if options.record:
        options.record.write_text(record(rows))
        return 0
    known = {(r["model"], r["technique"]) for r in rows}
    cells = [(m, t) for m, t in cells if (m.id, t.name) not in known]
    place = CATALOGUE
    if options.blocks:
        place = write_cut(Path(tempfile.mkdtemp(prefix="catalogue-")), options.blocks)
    out = options.out.open("a") if options.out else None
    for _, group in itertools.groupby(cells, key=lambda cell: cell[0].id):
        mine = list(group)
        classes = [f"diffusers.{mine[0][0].pipeline}", *(".".join(p) for p in mine[0][0].parts.values())]
        with warm(options.python, place, classes) as zygote, contextlib.ExitStack() as later:
            whole: Zygote | None = None
            for model, technique in mine:
                row = run_cell(zygote, model, technique, options.timeout)
                if row is None:
                    continue
                if row["verdict"] == "failed" and place != CATALOGUE:
                    whole = whole or later.enter_context(warm(options.python, CATALOGUE, classes))
                    row = run_cell(whole, model, technique, options.timeout) or row
                rows.append(row)
                if out:
                    out.write(json.dumps(row) + "\n")
                    out.flush()
                print(
                    f"{row['verdict']:<8}{row['seconds']:6.1f} s  {model.id} x {technique.name}  {row['error'][:160]}"
                )
                sys.stdout.flush()
    print("\n" + "\n\n".join(filter(None, [grouped(rows, "refused"), grouped(rows, "failed"), table(rows)])))
    return 1 if any(r["verdict"] == "failed" for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
