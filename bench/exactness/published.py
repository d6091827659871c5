"""Is what a measurement says a model weighs what its publisher says?

    python bench/exactness/published.py FIGURES [--record FILE]

``FIGURES`` is a JSON list of rows with ``repo``, ``component`` and what was published of it: ``bytes`` of its weight
files with their ``itemsize``, ``params``, or ``gb`` as a page prints it (``gb_s`` with its unit ``u``, of ``n`` files).
Each component is loaded on the virtual card in the published type. A figure agrees when it lies within what its digits
leave open: half of the last one for each file, and a header. ``DEVIATIONS`` explains the others, each by a rule that is
computed here and not by a number.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
warnings.filterwarnings("ignore")
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).parent))

HEADER = 150
"""Bytes of a file's header per tensor, at most: its name, type, shape and place as JSON."""
HEADLINE = 0.1
"""A count in a model's name ("13B") is a round number: a tenth of it."""
DTYPES = {2: "bfloat16", 4: "float32"}
DEVIATIONS = {
    ("Tongyi-MAI/Z-Image-Turbo", "vae"): ("cut", "the page cuts digits off instead of rounding them"),
    ("black-forest-labs/FLUX.2-klein-4B", "text_encoder"): (
        "two files", "the sum of two files, each rounded (the index of Z-Image-Turbo has the same encoder to the byte)",
    ),
    ("nvidia/Cosmos-1.0-Diffusion-7B-Text2World", "text_encoder"): (
        "embedding", "the file keeps the token embedding in float32, the rest in 16 bits",
    ),
    ("kandinskylab/Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers", "transformer"): (
        "loaded", "the file keeps in float32 what the class keeps in float32: its size is that of the loaded model",
    ),
}  # fmt: skip
"""What is published in another way -> the rule that leads from one figure to the other, and the rule in words."""


def stored(module: Any) -> tuple[int, int]:
    """(bytes, tensors) of the file that holds the module: parameters and persistent buffers, tied ones once."""
    tensors = {id(t): t for t in module.state_dict(keep_vars=True).values() if hasattr(t, "numel")}.values()
    return sum(t.numel() * t.element_size() for t in tensors), len(tensors)


def look(row: dict[str, Any], module: Any, component: Any) -> dict[str, Any]:
    """What was published, what was measured, and whether the two agree."""
    found: dict[str, Any] = {key: row[key] for key in ("repo", "component", "kind")}
    if "params" in row:
        allowed = HEADLINE * row["params"] if row["kind"] == "headline" else 0
        return _judged(
            {**found, "what": "parameters", "published": row["params"], "measured": component.params}, allowed
        )
    nbytes, tensors = stored(module)
    rule, words = DEVIATIONS.get((row["repo"], row["component"]), ("", ""))
    measured = component.loaded_bytes if rule == "loaded" else sum(p.numel() for p in _unique(module)) * row["itemsize"]
    if rule == "embedding":
        measured += 2 * module.get_input_embeddings().weight.numel()
    found |= {"what": "bytes", "measured": measured, "loaded_bytes": component.loaded_bytes}
    if words:
        found["deviation"] = words
    if "bytes" in row:
        return _judged({**found, "published": row["bytes"]}, 0)
    unit = {"GB": 1e9, "MB": 1e6}[row["u"]]
    digit = unit * 10.0 ** -len(row["gb_s"].partition(".")[2])
    half = digit if rule == "cut" else digit / 2
    files = 2 if rule == "two files" else row.get("n", 1)
    # A file of a gigabyte or more is printed in hundredths of one, also where the sum has a digit more.
    large = sum(t.numel() * t.element_size() >= 1e9 for t in _unique(module)) if files > 1 else 0
    allowed = half * (files - large) + max(half, 5e6) * large + HEADER * tensors
    return _judged({**found, "published": round(float(row["gb_s"]) * unit)}, allowed)


def _unique(module: Any) -> Any:
    return {id(t): t for t in module.state_dict(keep_vars=True).values() if hasattr(t, "numel")}.values()


def _judged(row: dict[str, Any], allowed: float) -> dict[str, Any]:
    return {**row, "allowed": round(allowed), "agrees": abs(row["measured"] - row["published"]) <= allowed}


def run(rows: list[dict[str, Any]], scratch: str) -> list[dict[str, Any]]:
    """Every row, judged. Loads one model at a time on the virtual card."""
    import dataclasses

    import child
    import compare
    import torch
    from oomdoctor.loading.install import install
    from oomdoctor.models import CATALOGUE, resolve
    from oomdoctor.vgpu import VirtualCard, renew, virtual_gpu

    card = VirtualCard("big", "Big", total_bytes=1 << 40, compute_capability=(9, 0))
    judged = []
    with virtual_gpu(card):
        install({"catalogue": str(CATALOGUE), "configs": [], "like": {}, "hf_cache": None, "scratch": scratch}, [])
        child.quiet()
        for row in rows:
            part = resolve(row["repo"]).component(row["component"])
            assert part is not None, row
            world = renew(card)
            cls = child.find_class(part.library, part.class_name)
            folder = {} if part.name == "." else {"subfolder": part.name}
            dtype = getattr(torch, DTYPES.get(row.get("itemsize", 2), "bfloat16"))
            module = cls.from_pretrained(row["repo"], torch_dtype=dtype, **folder)
            world.tracker.name(part.name, module)
            judged.append(look(row, module, compare.component([dataclasses.asdict(n) for n in world.tracker.nodes])))
            del module
    return judged


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--record", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = run(json.loads(options.figures.read_text()), scratch)
    for row in rows:
        off = row["measured"] / row["published"] - 1
        print(
            f"{'' if row['agrees'] else 'NOT '}equal {row['repo']} {row['component']} {off:+.2%} {row.get('deviation', '')}"
        )
    if options.record:
        lines = ",\n".join(f" {json.dumps(row)}" for row in rows)
        options.record.write_text(f"[\n{lines}\n]\n")
    return 0 if all(row["agrees"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
