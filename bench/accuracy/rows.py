"""Published rows -> scripts for the virtual card, with the figure each one predicts."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from as_measured import changes_of
from explained import why
from phrases import Recipe, Unexpressed, recipe

GIB = 1 << 30
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "measurements.jsonl"

CARDS = (
    ("rtx 5090", "RTX 5090"), ("rtx 4090", "RTX 4090"), ("rtx 3090", "RTX 3090"), ("a100 40", "A100 40GB"),
    ("a100", "A100 80GB"), ("a800", "A100 80GB"), ("h100", "H100 80GB"), ("h800", "H100 80GB"), ("h20", "H100 80GB"),
    ("p100", "Tesla P100 16GB"), ("gtx 1070", "GTX 1070"), ("l20", "L40S"), ("titan rtx", "TITAN RTX"),
)  # fmt: skip
"""Words of a row -> card. Allocated bytes depend on the architecture (attention kernels, convolutions), not the size;
cards that the catalogue lacks are stood in for by the same architecture."""

PRESUMED = "A100 80GB"
"""For rows that do not name a card."""

PIPELINES = {
    "THUDM/CogVideoX-5b": "CogVideoXPipeline", "THUDM/CogVideoX-2b": "CogVideoXPipeline",
    "SD1.5": "StableDiffusionPipeline", "black-forest-labs/FLUX.1-dev": "FluxPipeline",
}  # fmt: skip
DECIMAL = ("battaglia", "difftest")
"""Sources whose "GB" are 10^9 bytes; the others divide by 1024^3 and print "GB"."""
CALL = ("text_encode", "image_encode", "denoise", "vae_encode", "vae_decode", "post")
"""Stages of the call; before them are loading and placing."""
CALL_ONLY = ("battaglia",)
"""Sources that read what the card had free around the call, so that peaks of loading are not in their figures."""
REPOSITORIES = {"SD1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}
VAES = {
    "SD1.5/SDXL VAE": ("AutoencoderKL", "stabilityai/stable-diffusion-xl-base-1.0", 8, 4),
    "FLUX.1 VAE": ("AutoencoderKL", "black-forest-labs/FLUX.1-dev", 8, 16),
    "Qwen/Qwen-Image VAE": ("AutoencoderKLQwenImage", "Qwen/Qwen-Image", 8, 16),
    "CogVideoX VAE": ("AutoencoderKLCogVideoX", "THUDM/CogVideoX-5b", 8, 16),
}
GGUF_FILES = {
    "black-forest-labs/FLUX.1-dev": ("FluxTransformer2DModel", "city96/FLUX.1-dev-gguf", "flux1-dev-{}.gguf"),
    "Tongyi-MAI/Z-Image-Turbo": ("ZImageTransformer2DModel", "unsloth/Z-Image-Turbo-GGUF", "z-image-turbo-{}.gguf"),
}
_DTYPES = {"bf16": "torch.bfloat16", "fp16": "torch.float16", "fp32": "torch.float32", "fp16/bf16": "torch.bfloat16"}
STEPS = 3
"""Peaks do not depend on the number of steps; three, so that a repeated one is seen."""


@dataclass(frozen=True)
class Cell:
    """One virtual run and the published figure to hold against it."""

    row: str
    source: str
    card: str
    metric: str
    published: float
    """Bytes."""
    confidence: str
    families: frozenset[str]
    over_weights: bool
    note: str
    model: str = ""
    changes: tuple[str, ...] = ()
    """Changes of libraries that the script takes back."""
    seconds: float | None = None
    """Published time of the call, and with how many steps; None where it is not of the call alone."""
    steps: int = 0

    def explanation(self) -> str:
        """Why an error of this row is large, where that is known."""
        return why(self.row, self.model, self.metric, self.families)

    def predicted(self, answer: dict[str, Any]) -> float:
        """The figure of the same name in a run's answer, bytes."""
        before = [int(word) for word in answer["output_tail"].rsplit("WEIGHTS", 1)[1].split()[:2] if word.isdigit()]
        if self.metric == "allocated":
            value = answer["peak_allocated_bytes"]
        else:
            value = answer["peak_reserved_bytes"]
            if self.row.startswith(CALL_ONLY):
                value = max(s["peak_reserved_bytes"] for s in answer["stages"] if s["stage"] in CALL)
            value += answer["context_bytes"] if self.metric == "nvidia-smi" else 0
        if not self.over_weights:
            return float(value)
        # What a figure is over was read by the same counter, once the weights were on the card.
        return float(value - before[0 if self.metric == "allocated" else -1])

    def predicted_seconds(self, answer: dict[str, Any]) -> float | None:
        """Time of the call with as many steps as were measured; None where no such time was published."""
        if self.seconds is None or not self.steps:
            return None
        time = 0.0
        for stage in answer["stages"]:
            if stage["stage"] in CALL:
                time += stage["seconds"] * (self.steps / min(self.steps, STEPS) if stage["stage"] == "denoise" else 1.0)
        return time


def rows() -> list[dict[str, Any]]:
    """The published rows; empty where the data is not at hand."""
    if not DATA.exists():
        return []
    return [json.loads(line) for line in DATA.read_text().splitlines()]


def cell(row: dict[str, Any]) -> Cell:
    """Raises :class:`Unexpressed` with the reason why a row is left out."""
    note = row["note"] or ""
    if row["value"] is None:
        raise Unexpressed("no memory figure")
    if row["confidence"] == "low":
        raise Unexpressed("low confidence: the conditions are not stated, or the figure is not an inference peak")
    if row["metric"] == "unspecified":
        raise Unexpressed("the source does not say which counter it read")
    if note.startswith("BOUND"):
        raise Unexpressed("a bound that a test asserts, not a measurement")
    if "excludes VAE decode" in note:
        raise Unexpressed("the figure leaves the VAE out")
    source, over = (_vae(row), True) if row["model"] in VAES else (_whole(row), False)
    unit = {"GiB": GIB, "GB": 10**9 if row["id"].startswith(DECIMAL) else GIB, "MiB": 1 << 20}[row["unit"]]
    over = over and not (row["metric"] == "allocated" and "INCLUDES VAE weights" in note)
    found = recipe(_technique(row)).families if row["model"] not in VAES else {"vae alone"}
    return Cell(
        row["id"], source, _card(row["gpu"]), row["metric"], row["value"] * unit, row["confidence"],
        frozenset(found), over, note, row["model"], tuple(change.name for change in changes_of(row)),
        _seconds(row), row["steps"] or 0,
    )  # fmt: skip


def _technique(row: dict[str, Any]) -> str:
    """The row's words; where they leave a component open that the same source names in the row before, with it."""
    words = str(row["technique"])
    return words.replace("bnb nf4 +", "bnb nf4 transformer+T5 +") if row["id"].startswith("battaglia") else words


def _seconds(row: dict[str, Any]) -> float | None:
    """Times of the call alone, on the card itself, of a program that is not compiled."""
    words = (row["gpu"] or "").lower()
    stood_in = "h20" in words and "h200" not in words or "l20" in words or not words
    if row["latency_s"] is None or "whole process" in (row["note"] or "") or stood_in or "compile" in row["technique"]:
        return None
    return float(row["latency_s"])


def _card(words: str | None) -> str:
    for key, card in CARDS:
        if key in (words or "").lower():
            return card
    return PRESUMED


def _dtype(row: dict[str, Any]) -> str:
    if row["dtype"] not in _DTYPES:
        raise Unexpressed(f"dtype {row['dtype']}")
    return _DTYPES[row["dtype"]]


def _vae(row: dict[str, Any]) -> str:
    cls, repository, factor, channels = VAES[row["model"]]
    if row["model"] == "FLUX.1 VAE" and "decode" in row["scope"]:
        raise Unexpressed("another implementation of the decoder than diffusers' (it holds no residual level)")
    dtype, batch, frames = _dtype(row), row["batch"] or 1, row["num_frames"]
    height, width = row["height"], row["width"]
    video = frames is not None
    if "decode" in row["scope"]:
        latent_frames = f"{math.ceil(frames / 4)}, " if video else ""
        shape = f"{batch}, {channels}, {latent_frames}{height // factor}, {width // factor}"
        call = f"vae.decode(torch.randn({shape}, device='cuda', dtype={dtype}))"
    else:
        shape = f"{batch}, 3, {f'{frames}, ' if video else ''}{height}, {width}"
        call = f"vae.encode(torch.randn({shape}, device='cuda', dtype={dtype}))"
    tiling = ""
    if "tiled 512px" in row["scope"]:
        tiling = "vae.enable_tiling()\nvae.tile_sample_min_size, vae.tile_latent_min_size = 512, 64\n"
    elif row["technique"] == "framewise cache + tiling":
        tiling = "vae.enable_tiling()\n"
    if row["technique"] not in ("no tiling", "none", "tiled 512px", "framewise conv cache", "framewise cache + tiling"):
        raise Unexpressed(f"not expressed: {row['technique']}")
    if row["technique"] == "none":
        raise Unexpressed("the encoder before it was made framewise")
    return (
        "import torch\n" + "".join(change.lines for change in changes_of(row)) + f"from diffusers import {cls}\n"
        f"vae = {cls}.from_pretrained({repository!r}, subfolder='vae', torch_dtype={dtype}).to('cuda')\n{tiling}"
        "print('WEIGHTS', sum(p.numel() * p.element_size() for p in vae.parameters()), torch.cuda.memory_reserved())\n"
        f"with torch.no_grad():\n    {call}\n"
    )


def _whole(row: dict[str, Any]) -> str:
    if row["scope"] != "whole":
        raise Unexpressed(f"part of a pipeline only: {row['scope']}")
    model = row["model"]
    repository = REPOSITORIES.get(model, model)
    cls = PIPELINES.get(model, row["pipeline_class"])
    if "/" not in repository or not cls:
        raise Unexpressed(f"which weights is not stated: {model}")
    plan = recipe(_technique(row))
    if "CogVideoX" in model:
        # torchao's benchmark of it quantises each model before it goes to the card: its int4 peaks are below what the
        # plain weights take. Its FLUX benchmark does so on the card.
        plan.early += [line for line in plan.lines if line.startswith("quantize_")]
        plan.lines = [line for line in plan.lines if line not in plan.early]
    dtype = _dtype(row)
    changes = changes_of(row)
    lines = ["import torch", *(change.lines for change in changes), f"from diffusers import {cls}", *plan.imports]
    options = [f"torch_dtype={dtype}", *plan.options]
    lines += _quantisation(plan, model, dtype, options)
    lines.append(f"pipe = {cls}.from_pretrained({repository!r}, {', '.join(options)})")
    lines += [change.then for change in changes if change.then]
    lines += [line.replace("DTYPE", dtype) for line in plan.early]
    if plan.placement == "resident":
        lines.append("pipe.to('cuda')")
    lines += [line.replace("DTYPE", dtype) for line in plan.lines]
    if plan.placement in ("model", "sequential"):
        lines.append(f"pipe.enable_{plan.placement}_cpu_offload()")
    lines.append(
        "print('WEIGHTS', sum(p.numel() * p.element_size() for c in pipe.components.values()"
        " if isinstance(c, torch.nn.Module) for p in c.parameters()))"
    )
    call = ["'a photo of a cat'", f"num_inference_steps={min(row['steps'] or STEPS, STEPS)}"]
    for name, key in (("height", "height"), ("width", "width"), ("num_frames", "num_frames")):
        if row[key]:
            call.append(f"{name}={row[key]}")
    if row["guidance"] is not None:
        call.append(f"guidance_scale={row['guidance']}")
    call += plan.call
    if (row["batch"] or 1) > 1:
        call.append(f"num_images_per_prompt={row['batch']}")
    if row["max_sequence_length"] and cls.startswith(("Flux", "ZImage")):
        call.append(f"max_sequence_length={row['max_sequence_length']}")
    lines.append(f"pipe({', '.join(call)})")
    return "\n".join(lines) + "\n"


def _quantisation(plan: Recipe, model: str, dtype: str, options: list[str]) -> list[str]:
    if not plan.quantised:
        return []
    lines: list[str] = []
    mapping = []
    for part, config in plan.quantised.items():
        if config.startswith("gguf:"):
            cls, repository, file = GGUF_FILES.get(model, ("", "", ""))
            if not cls:
                raise Unexpressed("no GGUF file of this model is known")
            name = file.format(config[5:])
            lines += [
                f"from diffusers import {cls}, GGUFQuantizationConfig",
                f"{part} = {cls}.from_single_file('https://huggingface.co/{repository}/blob/main/{name}', "
                f"quantization_config=GGUFQuantizationConfig(compute_dtype={dtype}), torch_dtype={dtype}, "
                f"config={model!r}, subfolder='transformer')",
            ]
            options.append(f"{part}={part}")
        else:
            package = "diffusers" if part == "transformer" else "transformers"
            alias = f"{package.title()}Config"
            lines.append(f"from {package} import BitsAndBytesConfig as {alias}")
            mapping.append(f"{part!r}: {config.replace('BitsAndBytesConfig', alias)}")
    if mapping:
        lines.append("from diffusers.quantizers import PipelineQuantizationConfig")
        options.append(f"quantization_config=PipelineQuantizationConfig(quant_mapping={{{', '.join(mapping)}}})")
    return lines
