"""The figures in the skill's references: what common cases take on common cards, predicted on the virtual GPU.

    python bench/skill_figures.py [NAME ...]     # runs, writes bench/recorded/skill_figures.json and the pages
    python bench/skill_figures.py --render       # only writes the pages from what is recorded

Everything here is a prediction and is labelled so; a figure measured on a card stands in ``bench/recorded`` with the
name of the card, never in these tables.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench")]

from oomdoctor.doctor import Doctor
from oomdoctor.hardware import card, target_for
from oomdoctor.job import read_job
from oomdoctor.models import CATALOGUE
from oomdoctor.rewrite import rewrite
from oomdoctor.script import read_script
from oomdoctor.trial import Zygote, run_virtual
from oomdoctor.trial.runner import UNLIMITED_BYTES
from oomdoctor.units import duration, gib
from oomdoctor.values import Card, Strategy, Trial

RECORD = ROOT / "bench" / "recorded" / "skill_figures.json"
PAGES = ROOT / "skill" / "diffusers-oom-doctor" / "references"
MARKED = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

FLUX = """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat", height=1024, width=1024, num_inference_steps=28).images[0]
"""
SD15 = """\
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5"{dtype})
{before}pipe.to("cuda")
image = pipe("a cat", num_inference_steps=50).images[0]
"""
MATH = """\
for module in pipe.unet.modules():
    if module.__class__.__name__ == "Attention":
        module.set_processor(AttnProcessor())
"""
WORKED = {
    "black-forest-labs/FLUX.1-dev": FLUX,
    "stabilityai/stable-diffusion-xl-base-1.0": """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat", num_inference_steps=30).images[0]
""",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": """\
import torch
from diffusers import WanPipeline

pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-14B-Diffusers", torch_dtype=torch.bfloat16)
pipe.to("cuda")
video = pipe("a cat", height=480, width=832, num_frames=81, num_inference_steps=30).frames[0]
""",
}
QUANTISED = (
    ("quantised, all on the card", "bnb_nf4(transformer, text_encoder_2)"),
    ("quantised, model offload", "bnb_nf4(transformer, text_encoder_2)+model_offload"),
    (
        "quantised, group offload (leaf, stream)",
        "bnb_nf4(transformer, text_encoder_2)+group_offload(leaf, stream=true)",
    ),
)
CARDS = ("rtx-3060-12gb", "rtx-3090-24gb", "rtx-4090-24gb", "h100-80gb")
OLD_CARDS = (
    "t4-16gb",
    "rtx-3060-12gb",
    "a10g-24gb",
    "rtx-a6000-48gb",
    "a100-40gb",
    "a100-80gb",
    "rtx-4090-24gb",
)


class Bench:
    """One warm child for all figures."""

    def __init__(self, zygote: Zygote) -> None:
        self.zygote = zygote

    def on(self, source: str, name: str, *, unlimited: bool = True) -> Trial:
        """``source`` on that card's rates, without its limit of memory unless asked."""
        chosen: Card = card(name)
        if unlimited:
            chosen = chosen.model_copy(update={"total_bytes": UNLIMITED_BYTES})
        return run_virtual(self.zygote, source, card=chosen, path="call.py", timeout=1800.0)

    def cell(self, source: str, name: str, *, unlimited: bool = True) -> dict[str, Any]:
        """Seconds and peaks, or how it failed. ``load`` and ``live`` are live tensors while loading and while running."""
        trial = self.on(source, name, unlimited=unlimited)
        if trial.outcome != "ok":
            return {"outcome": trial.outcome, "error": (trial.error or "")[-300:]}
        by_stage = [(s.stage.value, s.peak_allocated_bytes or 0) for s in trial.stages]
        return {
            "outcome": "ok",
            "seconds": trial.seconds,
            "vram": (trial.peak_reserved_bytes or 0) + (trial.context_bytes or 0),
            "load": max((n for stage, n in by_stage if stage in ("load", "place")), default=0),
            "live": max((n for stage, n in by_stage if stage not in ("load", "place")), default=0),
            "ram": trial.peak_host_bytes,
            "denoise": sum(s.seconds or 0.0 for s in trial.stages if s.stage.value == "denoise"),
        }


def compile_and_offload(bench: Bench) -> dict[str, Any]:
    """The open table: quantised alone, with model offload, with group offload."""
    script = read_script(FLUX)
    out: dict[str, Any] = {}
    for label, strategy in QUANTISED:
        source = rewrite(FLUX, Strategy.parse(strategy), script=script, versions=dict(bench.zygote.versions)).source
        out[label] = {name: _told(label, name, bench.cell(source, name, unlimited=False)) for name in CARDS}
    return out


def sd15_speed(bench: Bench) -> dict[str, Any]:
    """Stable Diffusion 1.5, as the old speed table, with what there is today."""
    half = ", torch_dtype=torch.float16"
    last = "pipe.unet.to(memory_format=torch.channels_last)\n"
    rows = {
        "float32, plain attention": SD15.format(dtype="", before=_plain()),
        "float32": SD15.format(dtype="", before=""),
        "fp16, plain attention": SD15.format(dtype=half, before=_plain()),
        "fp16": SD15.format(dtype=half, before=""),
        "fp16, channels last": SD15.format(dtype=half, before=last),
        "fp16, channels last, fused QKV": SD15.format(dtype=half, before=last + "pipe.fuse_qkv_projections()\n"),
    }
    cards = ("t4-16gb", "rtx-3060-12gb", "rtx-4090-24gb", "a100-40gb")
    return {label: {n: _told(label, n, bench.cell(text, n)) for n in cards} for label, text in rows.items()}


def sd15_attention(bench: Bench) -> dict[str, Any]:
    """Steps per second with the score matrix written out, and with a fused kernel."""
    half = ", torch_dtype=torch.float16"
    rows = {"plain": SD15.format(dtype=half, before=_plain()), "fused (SDPA)": SD15.format(dtype=half, before="")}
    return {label: {n: _told(label, n, bench.cell(text, n)) for n in OLD_CARDS} for label, text in rows.items()}


def _plain() -> str:
    return "from diffusers.models.attention_processor import Attention, AttnProcessor\n" + MATH


def worked(bench: Bench) -> dict[str, Any]:
    """The calculator's symbols for three models."""
    out: dict[str, Any] = {}
    for model, source in WORKED.items():
        with Doctor(
            target=target_for(card("rtx-4090-24gb"), ram_bytes=256 << 30), python=bench.zygote.python
        ) as doctor:
            doctor._zygote, kept = bench.zygote, doctor._zygote
            found = doctor.measure(read_job(source))
            doctor._zygote = kept
        print(f"worked: {model}", flush=True)
        out[model] = {
            "components": {
                c.name: [c.loaded_bytes, c.fp8_cast_bytes, c.int8_bytes, c.nf4_bytes, c.largest_block_bytes, c.unmatched_bytes,
                         c.largest_leaf_bytes] for c in found.components
            },
            "stages": {s.stage.value: max(s.activation_bytes, 0) for s in found.stages},
        }  # fmt: skip
    return out


def _told(label: str, name: str, row: dict[str, Any]) -> dict[str, Any]:
    print(f"{label} on {name}: {row['outcome']} {row.get('seconds', row.get('error'))}", flush=True)
    return row


# ------------------------------------------------------------------------------------------------ the pages
def show_compile_and_offload(rows: dict[str, Any]) -> str:
    """Memory once (live tensors hardly depend on the card), seconds per card, each run within that card's memory."""
    head = [
        "nf4 transformer and T5",
        "loading, GiB live",
        "running, GiB live",
        "RAM GiB",
        *(f"`{name}`" for name in CARDS),
    ]
    body = []
    for label, cells in rows.items():
        good = [c for c in cells.values() if c["outcome"] == "ok"]
        sizes = [gib(max(c[key] for c in good)) if good else "-" for key in ("load", "live", "ram")]
        body.append([label, *sizes, *(_time(c) for c in cells.values())])
    return _table(head, body)


def _time(cell: dict[str, Any]) -> str:
    return {"ok": duration(cell.get("seconds")), "oom": "does not fit"}.get(cell["outcome"], cell["outcome"])


def show_sd15_speed(rows: dict[str, Any]) -> str:
    """Seconds per picture and the factor over the first row."""
    cards = list(next(iter(rows.values())))
    first = next(iter(rows.values()))
    body = []
    for label, cells in rows.items():
        body.append([label, *(
            f"{c['seconds']:.1f} s (× {first[n]['seconds'] / c['seconds']:.1f})" if c["outcome"] == first[n]["outcome"] == "ok"
            else c["outcome"] for n, c in cells.items()
        )])  # fmt: skip
    return _table(["", *(f"`{n}`" for n in cards)], body)


def show_sd15_attention(rows: dict[str, Any]) -> str:
    """Steps per second and peak VRAM."""
    plain, fused = rows["plain"], rows["fused (SDPA)"]
    body = [
        [f"`{n}`", f"{50 / plain[n]['denoise']:.1f}", f"{50 / fused[n]['denoise']:.1f}", gib(plain[n]["vram"]), gib(fused[n]["vram"])]
        for n in plain if plain[n]["outcome"] == fused[n]["outcome"] == "ok"
    ]  # fmt: skip
    return _table(["card", "plain, steps/s", "fused, steps/s", "plain, VRAM GiB", "fused, VRAM GiB"], body)


def show_worked(rows: dict[str, Any]) -> str:
    """Components and stages of each model."""
    head = ["model", "component", "S", "fp8 cast", "int8", "nf4", "S_block", "S_unmatched", "S_leaf"]
    body, lines = [], []
    for model, found in rows.items():
        for name, sizes in found["components"].items():
            body.append([f"`{model}`", f"`{name}`", *(gib(n) if n else "" for n in sizes)])
        stages = ", ".join(f"{s.replace('_', ' ')} {gib(n)}" for s, n in found["stages"].items() if n > 1 << 20)
        lines.append(f"- `{model}`: A = {stages}")
    return _table(head, body) + "\n\n" + "\n".join(lines)


def _table(head: list[str], body: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *body])


FIGURES: dict[str, tuple[Callable[[Bench], dict[str, Any]], Callable[[dict[str, Any]], str]]] = {
    "compile-and-offload": (compile_and_offload, show_compile_and_offload),
    "sd15-speed": (sd15_speed, show_sd15_speed),
    "sd15-attention": (sd15_attention, show_sd15_attention),
    "worked": (worked, show_worked),
}


def load() -> dict[str, Any]:
    """What is recorded: name -> {versions, rows}."""
    found: dict[str, Any] = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {}
    return found


def rendered(text: str, record: dict[str, Any]) -> str:
    """``text`` with the recorded figures in their places."""

    def again(found: re.Match[str]) -> str:
        if found[2] not in record:
            return found[0]
        kept = record[found[2]]
        versions = ", ".join(f"{k} {v}" for k, v in kept["versions"].items())
        return f"{found[1]}{FIGURES[found[2]][1](kept['rows'])}\n\nPredicted on the virtual GPU ({versions}) by `bench/skill_figures.py`.\n{found[3]}"

    return MARKED.sub(again, text)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--python")
    options = parser.parse_args()
    if not options.render:
        loading: dict[str, Any] = {"catalogue": str(CATALOGUE), "configs": [], "like": {}, "hf_cache": None}
        with Zygote(options.python, card("rtx-4090-24gb"), loading) as zygote:
            for name in options.names or FIGURES:
                rows = FIGURES[name][0](Bench(zygote))
                versions = {k: zygote.versions.get(k) for k in ("diffusers", "torch")}
                record = load()
                record[name] = {"versions": versions, "rows": rows}
                RECORD.parent.mkdir(exist_ok=True)
                RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    for page in PAGES.glob("*.md"):
        page.write_text(rendered(page.read_text("utf-8"), load()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
