"""Do the patched examples run? Docstring examples of the catalogue's models, each technique written in, on a virtual card.

    python bench/rewriter_runs.py [--only STRATEGY ...] [--models WORD ...] [--blocks N] [--sample N --seed S] [--out FILE]

The call that is run is the one that the product generates from the patched script; two steps, transformers cut to a few
blocks, a card without limit. What does not run unpatched is listed apart and counts for nothing. Every failing cell is
printed with its error; exit status 1 when there is one. Cells that the library itself refuses are listed as *refused*.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tools"), str(Path(__file__).parent)]

from coverage import grouped, table, verdict
from cut_catalogue import write as write_cut
from docstring_examples import examples
from oomdoctor.errors import NotApplicable, OomDoctorError
from oomdoctor.hardware import card
from oomdoctor.models import catalogue
from oomdoctor.rewrite import rewrite
from oomdoctor.script import read_script
from oomdoctor.script.harness import harness
from oomdoctor.trial import Zygote, run_virtual
from oomdoctor.trial.runner import UNLIMITED_BYTES
from oomdoctor.values import Strategy

STRATEGIES = (
    "dtype(bf16)", "model_offload", "sequential_offload", "group_offload(leaf)", "group_offload(leaf, stream=true)",
    "group_offload(leaf, stream=true, record_stream=true)", "group_offload(leaf, stream=true, low_cpu_mem=true)",
    "group_offload(block, blocks=2)", "group_offload(leaf, disk=true)", "fp8_casting", "fp8_casting+model_offload",
    "fp8_casting+group_offload(leaf, stream=true)", "bnb_nf4", "bnb_int8", "bnb_nf4+model_offload", "torchao_int8",
    "torchao_fp8", "torchao_dynamic", "vae_tiling", "vae_slicing", "vae_framewise", "text_encoder_release",
    "batch_split(1)", "attention_slicing", "channels_last", "fuse_qkv", "forward_chunking", "cache(first_block)",
    "cache(taylorseer)", "compile(regional)", "compile(full)", "expandable_segments", "low_ram_loading", "tf32",
    "modern_api", "dtype(bf16)+fp8_casting+group_offload(leaf, stream=true)+vae_tiling+compile(regional)",
)  # fmt: skip


def scripts(words: list[str]) -> dict[str, tuple[str, str]]:
    """``FluxPipeline black-forest-labs/FLUX.1-dev`` -> (example, script); one for each pipeline of a known model."""
    known = set(catalogue())
    found: dict[str, tuple[str, str]] = {}
    for example, source in examples().items():
        use = read_script(source).main
        if use is None or use.kind != "pipeline" or use.model.value not in known or not use.calls:
            continue
        name = f"{use.class_name} {use.model.value}"
        if not words or any(w.lower() in name.lower() for w in words):
            found.setdefault(name, (example, source))
    return found


def run(zygote: Zygote, source: str, timeout: float) -> tuple[str, str, str]:
    """(verdict, error in one line, traceback) of the call generated from a script, with two steps."""
    unlimited = card("h100-80gb").model_copy(update={"total_bytes": UNLIMITED_BYTES})
    call = re.sub(r"(num_(?:prior_)?(?:inference|decoder_inference)_steps)=\d+", r"\1=2", harness(read_script(source)))
    try:
        trial = run_virtual(zygote, call, card=unlimited, path="call.py", timeout=timeout)
    except OomDoctorError as error:
        return "failed", str(error)[-300:], str(error)
    return *verdict(trial.outcome, trial.error), (trial.error or "")[-3000:]


def cells(zygote: Zygote, chosen: dict[str, tuple[str, str]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows, printed as they come."""
    rows: list[dict[str, Any]] = []
    for name, (example, source) in chosen.items():
        for strategy in ("plain", *(options.only or STRATEGIES)):
            if strategy not in ("plain", *options.only) and random.random() > options.share:
                continue
            try:
                patched = rewrite(source, Strategy.parse(strategy), versions=zygote.versions).source
            except NotApplicable:
                continue
            started = time.perf_counter()
            kind, error, trace = run(zygote, patched, options.timeout)
            seconds = time.perf_counter() - started
            row = {"model": name, "technique": strategy, "verdict": kind, "error": error, "seconds": seconds}
            if kind != "ok":
                row |= {"example": example, "script": patched, "traceback": trace}
            if strategy == "plain" and kind != "ok":
                row["verdict"] = "refused"
            rows.append(row)
            print(f"{row['verdict']:<8}{seconds:6.1f} s  {name} x {strategy}  {error[:160]}", flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            if strategy == "plain" and kind != "ok":
                break
    return rows


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="STRATEGY")
    parser.add_argument(
        "--models", nargs="*", default=[], metavar="WORD", help="pipelines or ids that contain one of these"
    )
    parser.add_argument(
        "--blocks", type=int, default=2, metavar="N", help="blocks of each kind; 0: as many as there are"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="only N examples, drawn at random")
    parser.add_argument("--share", type=float, default=1.0, help="of the cells of each example, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=180.0, metavar="SECONDS")
    parser.add_argument("--list", action="store_true", help="print the examples and run nothing")
    parser.add_argument("--out", type=Path, help="write one JSON line per cell to this file")
    options = parser.parse_args()
    random.seed(options.seed)
    chosen = scripts(options.models)
    if options.sample:
        chosen = dict(random.sample(list(chosen.items()), min(options.sample, len(chosen))))
    if options.list:
        print("\n".join(f"{name}  {example}" for name, (example, _) in chosen.items()))
        return 0
    place = write_cut(Path(tempfile.mkdtemp(prefix="catalogue-")), options.blocks or 10_000)
    loading = {"catalogue": str(place), "configs": [], "like": {}, "hf_cache": None}
    with Zygote(None, card("h100-80gb"), loading) as zygote:
        rows = cells(zygote, chosen, options)
    print("\n" + "\n\n".join(filter(None, [grouped(rows, "refused"), grouped(rows, "failed"), table(rows)])))
    return int(any(r["verdict"] == "failed" for r in rows))


if __name__ == "__main__":
    sys.exit(main())
