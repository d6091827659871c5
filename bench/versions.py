"""Which versions of the libraries the virtual runs were really tried with.

    python bench/versions.py PYTHON [PYTHON ...] [--models WORD ...] [--techniques NAME ...]

Each PYTHON is an interpreter with torch, diffusers, transformers and accelerate of some versions; nothing of ours has
to be installed there. A few cells of the coverage bench run in each, with few blocks, and one line per cell says how
it went. To make such an interpreter:

    python -m venv old && old/bin/pip install torch==2.6.0 diffusers==0.35.2 transformers==4.57.6 accelerate

``--record`` writes what was tried to ``bench/recorded/versions.json``, beside what is there already.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from coverage import run_cell
from coverage_cells import TECHNIQUES, models
from cut_catalogue import write as write_cut
from oomdoctor.errors import OomDoctorError
from oomdoctor.hardware import card
from oomdoctor.trial import Zygote

MODELS = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "FLUX.1-schnell", "Wan2.1-T2V-1.3B")
CELLS = (
    "plain", "model_offload", "sequential_offload", "group_leaf_stream", "fp8_casting", "bnb_nf4", "gguf", "vae_tiling",
    "attention_xformers", "compile_regional",
)  # fmt: skip
RECORD = Path(__file__).parent / "recorded" / "versions.json"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="+")
    parser.add_argument("--models", nargs="*", default=list(MODELS), metavar="WORD")
    parser.add_argument("--techniques", nargs="*", default=list(CELLS), metavar="NAME")
    parser.add_argument("--blocks", type=int, default=2, metavar="N")
    parser.add_argument("--timeout", type=float, default=240.0, metavar="SECONDS")
    parser.add_argument("--record", action="store_true", help=f"add the outcome to {RECORD.name}")
    options = parser.parse_args()
    recorded = json.loads(RECORD.read_text()) if options.record and RECORD.is_file() else {}
    place = write_cut(Path(tempfile.mkdtemp(prefix="catalogue-")), options.blocks)
    loading = {"catalogue": str(place), "configs": [], "like": {}, "hf_cache": None}
    failed = 0
    for python in options.python:
        try:
            with Zygote(python, card("h100-80gb"), loading) as zygote:
                versions = " ".join(f"{name} {version}" for name, version in sorted(zygote.versions.items()))
                print(f"{python}: {versions}", flush=True)
                count: Counter[str] = Counter()
                tried: dict[str, str] = {}
                for name in options.techniques:
                    for model in models(options.models):
                        row = run_cell(zygote, model, TECHNIQUES[name], options.timeout)
                        if row is None:
                            continue
                        count[row["verdict"]] += 1
                        words = f": {row['error'][:160]}" if row["error"] else ""
                        tried[f"{model.id} x {name}"] = f"{row['verdict']}{words}"
                        print(
                            f"  {row['verdict']:<8}{row['seconds']:6.1f} s  {model.id} x {name}  {row['error'][:200]}"
                        )
                        if row["verdict"] == "failed":
                            print("    " + row.get("traceback", "")[-1500:].replace("\n", "\n    "))
                        sys.stdout.flush()
                print(f"  {dict(count)}")
                recorded[versions] = {"cells": dict(count), "tried": tried}
                failed += count["failed"]
        except OomDoctorError as error:
            failed += 1
            print(f"{python}: {error}")
    if options.record:
        RECORD.write_text(json.dumps(dict(sorted(recorded.items())), indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
