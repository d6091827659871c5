"""Which technique goes with which, and with which pipeline: every pair is tried on the virtual GPU.

    python bench/compatibility.py [--techniques NAME ...] [--pipelines WORD ...] [--pairs-only] [--again]
    python bench/compatibility.py --render

Results are kept in ``bench/recorded/compatibility.json`` as they come, so that a run can be broken off and gone on with;
``--render`` writes ``skill/diffusers-oom-doctor/references/compatibility.md`` from them. Transformers are cut to two
blocks of each kind, pictures are as small as the pipelines' defaults in ``coverage_cells`` make them, two steps. A pair is
written by our rewriter; where that refuses, both techniques' own lines are put together, so that the libraries answer.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from coverage import run_cell, verdict
from coverage_cells import PLACE, TECHNIQUES, Model, Technique, Text, models, plain
from cut_catalogue import write as write_cut
from oomdoctor.errors import OomDoctorError
from oomdoctor.hardware import card
from oomdoctor.rewrite import rewrite
from oomdoctor.trial import Zygote, run_virtual
from oomdoctor.trial.runner import UNLIMITED_BYTES
from oomdoctor.values import Strategy

RECORD = ROOT / "bench" / "recorded" / "compatibility.json"
PAGE = ROOT / "skill" / "diffusers-oom-doctor" / "references" / "compatibility.md"
NAMES = (
    "model_offload", "sequential_offload", "group_leaf", "group_leaf_stream", "group_block", "group_disk", "fp8_casting",
    "bnb_nf4", "bnb_int8", "torchao_int8", "gguf", "vae_tiling", "vae_slicing", "attention_native_flash",
    "attention_slicing", "channels_last", "fuse_qkv", "cache_first_block", "compile_regional",
)  # fmt: skip
CARRIERS = ("black-forest-labs/FLUX.1-dev", "stabilityai/stable-diffusion-xl-base-1.0")
"""A pair is tried on the first of these for which both techniques mean something."""
PIPELINES = (
    "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0",
    "stabilityai/stable-diffusion-3.5-medium", "black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.2-klein-4B",
    "Qwen/Qwen-Image", "Tongyi-MAI/Z-Image-Turbo", "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "lodestones/Chroma1-HD", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "hunyuanvideo-community/HunyuanVideo", "Lightricks/LTX-Video", "zai-org/CogVideoX-2b", "genmo/mochi-1-preview",
)  # fmt: skip
NO_MEANING = {"fuse_qkv": "unet", "channels_last": "transformer", "attention_slicing": "transformer"}
"""Techniques that do nothing for a pipeline whose denoiser is of that kind: the pair goes to the next carrier."""


def composed(model: Model, pair: tuple[Technique, Technique]) -> Text | None:
    """Both techniques' own lines in one script; None where one has no meaning, or both change the load."""
    whole = plain(model)
    assert whole is not None
    place: list[str] = []
    for technique in pair:
        fresh = plain(model)
        assert fresh is not None
        made = technique.write(model, replace(fresh, imports=list(fresh.imports), after=[], place=[PLACE]))
        if made is None:
            return None
        whole.imports += [line for line in made.imports if line not in whole.imports]
        if made.load != fresh.load:
            if whole.load != fresh.load:
                return None
            whole.load = made.load
        whole.after += made.after
        if made.place != [PLACE]:
            place += [line for line in made.place if line not in place]
    if place:
        compiled = [line for line in place if "compile" in line]
        moved = [line for line in place if line not in compiled and line != PLACE]
        whole.place = [*(moved or [PLACE]), *compiled]
    return whole


def meaningful(model: Model, name: str) -> bool:
    """The technique changes something for this model."""
    kind = "unet" if "unet" in model.denoisers else "transformer"
    return NO_MEANING.get(name) != kind


def try_pair(zygote: Zygote, carriers: list[Model], one: str, other: str, timeout: float) -> dict[str, Any]:
    """One pair as a row: ``ours`` (written, refused or not), ``library`` (ok, refused or failed) and the words."""
    pair = (TECHNIQUES[one], TECHNIQUES[other])
    for model in carriers:
        if not all(meaningful(model, name) for name in (one, other)):
            continue
        text = composed(model, pair)
        ids = [t.strategy(model) for t in pair]
        source, ours, why = str(text) if text else None, "not written", ""
        if all(ids):
            try:
                patch = rewrite(
                    str(plain(model)), Strategy.parse("+".join(map(str, ids))), versions=dict(zygote.versions)
                )
                source, ours = patch.source, "written"
            except OomDoctorError as error:
                ours, why = "refused", str(error)
        if source is None:
            continue
        row = {"model": model.id, "ours": ours, "why": why}
        unlimited = card("h100-80gb").model_copy(update={"total_bytes": UNLIMITED_BYTES})
        trial = run_virtual(zygote, source, card=unlimited, path="call.py", timeout=timeout)
        library, words = verdict(trial.outcome, trial.error)
        return {**row, "library": library, "words": words}
    return {"model": None, "ours": "not written", "why": "", "library": "none", "words": ""}


def load() -> dict[str, Any]:
    """What is recorded so far."""
    if RECORD.is_file():
        found: dict[str, Any] = json.loads(RECORD.read_text("utf-8"))
        return found
    return {"versions": {}, "pairs": {}, "cells": {}}


def _plain_paths(row: dict[str, Any]) -> dict[str, Any]:
    """Without the folders of one run on one machine, which say nothing and differ every time."""
    folders = re.compile(r"(?:/[\w.-]+)+/(?=[\w.-]+)|\b\w+/(?=group_)|(?<=group_)[0-9a-f]{8,}")
    return {
        k: folders.sub("", v) if k in ("words", "why", "error") and isinstance(v, str) else v for k, v in row.items()
    }


def save(record: dict[str, Any]) -> None:
    """Keep it, one line per row."""
    for part in ("pairs", "cells"):
        record[part] = {key: _plain_paths(row) for key, row in record[part].items()}
    RECORD.parent.mkdir(exist_ok=True)
    rows = [f' "versions": {json.dumps(record["versions"])}']
    for part in ("pairs", "cells"):
        lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(record[part].items()))
        rows.append(f' "{part}": {{\n{lines}\n }}')
    RECORD.write_text("{\n" + ",\n".join(rows) + "\n}\n", "utf-8")


def run(options: argparse.Namespace) -> None:
    """Try what is not recorded yet (with ``--again``: what is named, even so)."""
    record = load()
    wanted = [n for n in NAMES if not options.techniques or n in options.techniques]
    found = {m.id: m for m in models([])}
    carriers = [found[name] for name in CARRIERS]
    place = write_cut(Path(tempfile.mkdtemp(prefix="catalogue-")), 2)
    loading: dict[str, Any] = {"catalogue": str(place), "configs": [], "like": {}, "hf_cache": None}
    with Zygote(options.python, card("h100-80gb"), loading) as zygote:
        record["versions"] = {k: zygote.versions.get(k) for k in ("diffusers", "torch", "transformers", "accelerate")}
        for index, one in enumerate(NAMES):
            for other in NAMES[index + 1 :]:
                key = f"{one} + {other}"
                if (one in wanted or other in wanted) and (options.again or key not in record["pairs"]):
                    record["pairs"][key] = _timed(
                        key, lambda a=one, b=other: try_pair(zygote, carriers, a, b, options.timeout)
                    )
                    save(record)
        for name in () if options.pairs_only else PIPELINES:
            if options.pipelines and not any(w.lower() in name.lower() for w in options.pipelines):
                continue
            for technique in wanted:
                key = f"{name} x {technique}"
                if not options.again and key in record["cells"]:
                    continue
                row = _timed(
                    key, lambda m=found[name], t=technique: run_cell(zygote, m, TECHNIQUES[t], options.timeout)
                )
                record["cells"][key] = {k: row[k] for k in ("how", "verdict", "error")} if row else {"verdict": "none"}
                save(record)


def _timed(key: str, work: Any) -> Any:
    started = time.perf_counter()
    row = work()
    said = (row or {}).get("library") or (row or {}).get("verdict")
    print(f"{time.perf_counter() - started:6.1f} s  {key}: {said}", flush=True)
    return row


# ------------------------------------------------------------------------------------------------ the page
SIGNS = {"ok": "yes", "refused": "no", "failed": "?", "none": ""}


def render(record: dict[str, Any]) -> str:
    """The reference page."""
    from skill_tables import clashes

    notes: dict[str, list[str]] = {}
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    head = [
        "# Compatibility",
        "",
        "Read this when you combine techniques, or wonder whether one works with a pipeline.",
        "",
        f"Made by `bench/compatibility.py`: each cell was run on the virtual GPU ({versions}), with transformers cut to two blocks "
        "and two steps. **yes**: it ran. **no**: the libraries raised; the words are below. **we refuse**: it ran, and our rewriter "
        "refuses it for the reason below. **?**: the virtual run itself could not do it, so nothing is known. Empty: not tried yet, or it has no "
        "meaning there. compile is not executed in a virtual run: its cells say only that the calls are accepted "
        "([torch-compile.md](torch-compile.md) has what compiling adds). A sample of pipelines, not all.",
        "",
        "## Technique × technique",
        "",
        _grid(list(NAMES), list(NAMES), lambda a, b: _pair_sign(record, a, b, notes)),
        "",
        "## Pipeline × technique",
        "",
        _grid(list(PIPELINES), list(NAMES), lambda p, t: _cell_sign(record, p, t, notes)),
        "",
        "## Why not",
        "",
        *(f"- {', '.join(where[:6])}{f' and {len(where) - 6} more' if len(where) > 6 else ''}: {words}"
          for words, where in sorted(notes.items(), key=lambda item: (-len(item[1]), item[0]))),
        "",
        "## Never together in one strategy",
        "",
        "What `rewrite_script` and `compute_strategies` exclude:",
        "",
        "<!-- table: clashes -->",
        clashes(),
        "<!-- end -->",
        "",
    ]  # fmt: skip
    return "\n".join(head)


def _grid(rows: list[str], columns: list[str], sign: Any) -> str:
    numbers = {name: str(index + 1) for index, name in enumerate(columns)}
    legend = "Columns: " + ", ".join(f"{n} `{name}`" for name, n in numbers.items()) + "."
    lines = ["| | " + " | ".join(numbers.values()) + " |", "| --- |" + " --- |" * len(columns)]
    for row in rows:
        label = f"{numbers[row]} `{row}`" if row in numbers else f"`{row}`"
        lines.append(f"| {label} | " + " | ".join(sign(row, column) for column in columns) + " |")
    return legend + "\n\n" + "\n".join(lines)


TECHNIQUE = {
    "group_leaf": "group_offload", "group_leaf_stream": "group_offload", "group_block": "group_offload",
    "group_disk": "group_offload", "attention_native_flash": "attention_backend", "cache_first_block": "cache",
    "compile_regional": "compile",
}  # fmt: skip
"""Names of the cells that are not the names of the techniques."""


def _excluded(one: str, other: str) -> bool:
    """Our own rule keeps them apart (a refusal for another reason, such as a batch of one, says nothing about the pair)."""
    from oomdoctor.techniques import clashes

    first, second = TECHNIQUE.get(one, one), TECHNIQUE.get(other, other)
    return first != second and clashes(first, second)


def _pair_sign(record: dict[str, Any], one: str, other: str, notes: dict[str, list[str]]) -> str:
    if one == other:
        return "·"
    first, second = sorted((one, other), key=NAMES.index)
    row = record["pairs"].get(f"{first} + {second}")
    if row is None:
        return ""
    refused = row["library"] == "ok" and _excluded(one, other)
    if (one, other) == (first, second) and (row["words"] or refused):
        notes.setdefault(_short(row["words"] or f"it ran, and we refuse it: {row['why']}"), []).append(
            f"`{first}` + `{second}`"
        )
    return "we refuse" if refused else SIGNS[row["library"]]


def _cell_sign(record: dict[str, Any], pipeline: str, technique: str, notes: dict[str, list[str]]) -> str:
    row = record["cells"].get(f"{pipeline} x {technique}")
    if row is None:
        return ""
    if row.get("error"):
        notes.setdefault(_short(row["error"]), []).append(f"{pipeline.rpartition('/')[2]} × `{technique}`")
    return SIGNS[row["verdict"]]


def _short(words: str) -> str:
    words = " ".join(words.split()).replace("|", "/").replace("<", "(").replace(">", ")")
    kept = words.partition(" `oom-doctor")[0]  # the way out is for the command line, not for this page
    return kept if len(kept) <= 220 else kept[:217] + "..."


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--techniques", nargs="*", default=[], choices=NAMES, metavar="NAME")
    parser.add_argument("--pipelines", nargs="*", default=[], metavar="WORD")
    parser.add_argument("--pairs-only", action="store_true")
    parser.add_argument("--again", action="store_true", help="try what is recorded already once more")
    parser.add_argument("--render", action="store_true", help="only write the page from what is recorded")
    parser.add_argument("--python")
    parser.add_argument("--timeout", type=float, default=180.0)
    options = parser.parse_args()
    if not options.render:
        run(options)
    PAGE.write_text(render(load()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
