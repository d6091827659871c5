"""Do the patched examples run? Docstring examples of the catalogue's models, each technique written in, on a virtual card.

    python bench/rewriter_runs.py [--only STRATEGY ...] [--models WORD ...] [--blocks N] [--sample N --seed S] [--out FILE]
    python bench/rewriter_runs.py --record [--minutes N]

The call that is run is the one that the product generates from the patched script; two steps, transformers cut to a few
blocks, a card without limit. What does not run unpatched is listed apart and counts for nothing. Every failing cell is
printed with its error; exit status 1 when there is one. Cells that the library itself refuses are listed as *refused*.

``--record`` tries one example for each class of model that runs the steps, and keeps what came out in
``bench/recorded/rewriter_runs.json``: a run can be broken off and gone on with.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tools"), str(Path(__file__).parent)]

from coverage import grouped, table, verdict
from coverage_cells import models, plain
from cut_catalogue import write as write_cut
from docstring_examples import examples
from oomdoctor.errors import NotApplicable, OomDoctorError
from oomdoctor.hardware import card
from oomdoctor.models import catalogue
from oomdoctor.rewrite import rewrite
from oomdoctor.script import read_script
from oomdoctor.script.harness import harness
from oomdoctor.techniques import Context
from oomdoctor.trial import Zygote, run_virtual
from oomdoctor.trial.runner import UNLIMITED_BYTES
from oomdoctor.values import PipelineUse, Strategy

STRATEGIES = (
    "dtype(bf16)", "model_offload", "sequential_offload", "group_offload(leaf)", "group_offload(leaf, stream=true)",
    "group_offload(leaf, stream=true, record_stream=true)", "group_offload(leaf, stream=true, low_cpu_mem=true)",
    "group_offload(block, blocks=2)", "group_offload(leaf, disk=true)", "fp8_casting", "fp8_casting+model_offload",
    "fp8_casting+group_offload(leaf, stream=true)", "bnb_nf4", "bnb_int8", "bnb_nf4+model_offload", "torchao_int8",
    "torchao_fp8", "torchao_dynamic", "vae_tiling", "vae_slicing", "vae_framewise", "text_encoder_release",
    "batch_split(1)", "attention_slicing", "channels_last", "fuse_qkv", "forward_chunking", "cache(first_block)",
    "cache(taylorseer)", "compile(regional)", "compile(full)", "expandable_segments", "low_ram_loading", "tf32",
    "modern_api", "dtype(bf16)+fp8_casting+group_offload(leaf, stream=true)+vae_tiling+compile(regional)",
    "sdpa_kernel(efficient)", "sdpa_kernel(flash)", "fused_attention", "attention_backend(_native_efficient)",
    "quanto_int8", "quanto_fp8+model_offload", "quanto_int4", "load_to_card", "sigmas_on_cpu", "compile(regions)",
    "cache(pyramid)", "torchao_int8+group_offload(leaf, stream=true)", "bnb_nf4+group_offload(leaf, stream=true)",
    "device_map(balanced)", "device_map(auto)",
)  # fmt: skip
CORE = (
    "model_offload", "group_offload(leaf, stream=true)", "group_offload(block, blocks=2)", "group_offload(leaf, disk=true)",
    "fp8_casting", "bnb_nf4", "torchao_int8", "vae_tiling", "text_encoder_release", "sdpa_kernel(efficient)", "quanto_int8",
    "device_map(balanced)", "device_map(auto)", "compile(regional)",
    "dtype(bf16)+fp8_casting+group_offload(leaf, stream=true)+vae_tiling+compile(regional)",
)  # fmt: skip
"""Tried on every family before the others are: each is written in a way of its own."""
RECORD = Path(__file__).parent / "recorded" / "rewriter_runs.json"


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


def families(chosen: dict[str, tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Class of model that runs the steps -> (name, script) of what stands for it: diffusers' own examples first, those
    that load nothing besides before others, then the call that the product generates for a model of the catalogue."""
    generated = ((m, plain(m)) for m in models([]) if m.pipeline is not None)
    everything = [(name, source) for name, (_, source) in chosen.items()]
    everything += [(f"{m.pipeline} {m.id} (generated)", str(text)) for m, text in generated if text is not None]
    found: dict[str, list[tuple[str, str]]] = {}
    for name, source in everything:
        script = read_script(source)
        assert script.main is not None
        context = Context(script, script.main)
        for part in context.denoisers[:1]:
            found.setdefault(context.class_of(part) or name, []).append((name, source))
    return {k: sorted(v, key=lambda c: bool(main_of(c[1]).components)) for k, v in sorted(found.items())}


def main_of(source: str) -> PipelineUse:
    """The pipeline of a script that has one."""
    use = read_script(source).main
    assert use is not None
    return use


def run(zygote: Zygote, source: str, timeout: float, count: int = 1) -> tuple[str, str, str]:
    """(verdict, error in one line, traceback) of the call generated from a script, with two steps."""
    unlimited = card("h100-80gb").model_copy(update={"total_bytes": UNLIMITED_BYTES})
    call = re.sub(r"(num_(?:prior_)?(?:inference|decoder_inference)_steps)=\d+", r"\1=2", harness(read_script(source)))
    try:
        trial = run_virtual(zygote, call, card=unlimited, path="call.py", timeout=timeout, count=count)
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
            kind, error, trace = run(zygote, patched, options.timeout, 2 if "device_map" in strategy else 1)
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


def load() -> dict[str, Any]:
    """What is recorded so far."""
    found: dict[str, Any] = {"versions": {}, "cells": {}}
    return json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else found


def save(record: dict[str, Any]) -> None:
    """Counts first, then one line for each model: what ran, what is not legal, and the words of what did not run."""
    cells: dict[str, dict[str, str]] = record["cells"]
    kinds = Counter(re.split(r":| \(", kind)[0] for row in cells.values() for kind in row.values())
    head = {"versions": record["versions"], "examples": len(cells), "cells": dict(sorted(kinds.items()))}
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(cells.items()))
    text = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items() if key != "cells")
    text += f' "counts": {json.dumps(head["cells"])},\n'
    RECORD.write_text(f'{{\n{text} "cells": {{\n{rows}\n }}\n}}\n', "utf-8")


def keep(zygote: Zygote, chosen: dict[str, tuple[str, str]], options: argparse.Namespace) -> None:
    """Tries what is not recorded yet, until the minutes are over."""
    record = load()
    record["versions"] = {k: zygote.versions.get(k) for k in ("diffusers", "torch", "transformers", "accelerate")}
    end = time.monotonic() + options.minutes * 60
    standing = {}
    for candidates in families(chosen).values():
        for name, source in candidates[:4]:
            row = record["cells"].setdefault(name, {})
            if "plain" not in row:
                kind, error, _ = run(zygote, source, options.timeout)
                row["plain"] = kind if kind == "ok" else f"{kind}: {_short(error)}"
                save(record)
            if row["plain"] == "ok":
                standing[name] = source
                break
    wanted = options.only or [*CORE, *(x for x in STRATEGIES if x not in CORE)]
    rounds = [wanted[: len(CORE)], wanted[len(CORE) :]]
    for name, source, strategy in ((n, s, x) for some in rounds for n, s in standing.items() for x in some):
        row = record["cells"].setdefault(name, {})
        if strategy in row and not options.again:
            continue
        if time.monotonic() > end:
            break
        try:
            patch = rewrite(source, Strategy.parse(strategy), versions=zygote.versions)
        except NotApplicable:
            row[strategy] = "not legal"
            continue
        started = time.perf_counter()
        kind, error, _ = run(zygote, patch.source, options.timeout, 2 if "device_map" in strategy else 1)
        row[strategy] = kind if kind == "ok" else f"{kind}: {_short(error)}"
        row[strategy] += " (a person has something to do)" if patch.by_hand else ""
        print(f"{time.perf_counter() - started:6.1f} s  {name} x {strategy}: {row[strategy]}", flush=True)
        save(record)
    save(record)


def _short(words: str) -> str:
    return " ".join(re.sub(r"(/[\w.-]+)+/", "", words).split())[:160]


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
    parser.add_argument("--record", action="store_true", help="one example for each family, kept in bench/recorded")
    parser.add_argument("--again", action="store_true", help="with --record: what is recorded already as well")
    parser.add_argument("--minutes", type=float, default=8.0, help="with --record: stop after so long")
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
        if options.record:
            keep(zygote, chosen, options)
            return 0
        rows = cells(zygote, chosen, options)
    print("\n" + "\n\n".join(filter(None, [grouped(rows, "refused"), grouped(rows, "failed"), table(rows)])))
    return int(any(r["verdict"] == "failed" for r in rows))


if __name__ == "__main__":
    sys.exit(main())
