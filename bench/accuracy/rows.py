"""Published rows -> scripts for the virtual card, with the figure each one predicts."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
PASCAL = "half-precision convolutions on Pascal hold about 0.49 GiB more at 512x512; cuDNN's algorithm there is not known: open"
EXPLAINED = (
    ("CogVideo", "resident",
     "today's diffusers hands convolution caches on by value: while a chunk is decoded the caches of the chunk before it "
     "are alive too (about 2.7 GiB at 480x720), where the measured version dropped each before making its successor"),
    ("gperdrizet", "resident", PASCAL), ("gperdrizet", "sequential offload", PASCAL),
    ("gperdrizet", "model offload",
     "0.39 GiB short, as much as the first text encoder and the VAE: they seem to have stayed on the card in that "
     "version; with half-precision VAEs also the convolutions of Pascal"),
    ("asomoza-004", "sequential offload",
     "the published figure is below what decoding this picture alone takes in the same source's other rows"),
    ("asomoza", "group offload",
     "with record_stream the peak is how far copies run ahead of compute, so it rests on predicted times of both"),
    ("battaglia", "bitsandbytes", "read with mem_get_info, which counts other processes too"),
    ("invoke-vae-03", "vae alone", "fp32 encoding: cuDNN takes more than one copy of the input; open"),
)  # fmt: skip
"""(words in model or id, family, mechanism) for rows that are off by more than 5 % and understood, or said to be open."""
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

    def explanation(self) -> str:
        """Why an error of this row is large, where that is known."""
        for words, family, why in EXPLAINED:
            if (words in self.model or words in self.row) and family in self.families:
                return why
        return ""

    def predicted(self, answer: dict[str, Any]) -> float:
        """The figure of the same name in a run's answer, bytes."""
        weights = int(answer["output_tail"].rsplit("WEIGHTS", 1)[1].split()[0])
        if self.metric == "allocated":
            value = answer["peak_allocated_bytes"]
        else:
            value = answer["peak_reserved_bytes"] + (answer["context_bytes"] if self.metric == "nvidia-smi" else 0)
        return float(value - weights if self.over_weights else value)


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
    unit = {"GiB": GIB, "GB": GIB, "MiB": 1 << 20}[row["unit"]]
    over = over and not (row["metric"] == "allocated" and "INCLUDES VAE weights" in note)
    found = recipe(row["technique"]).families if row["model"] not in VAES else {"vae alone"}
    return Cell(
        row["id"], source, _card(row["gpu"]), row["metric"], row["value"] * unit, row["confidence"],
        frozenset(found), over, note, row["model"],
    )  # fmt: skip


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
        f"import torch\nfrom diffusers import {cls}\n"
        f"vae = {cls}.from_pretrained({repository!r}, subfolder='vae', torch_dtype={dtype}).to('cuda')\n{tiling}"
        "print('WEIGHTS', sum(p.numel() * p.element_size() for p in vae.parameters()))\n"
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
    plan = recipe(row["technique"])
    dtype = _dtype(row)
    lines = ["import torch", f"from diffusers import {cls}", *plan.imports]
    options = [f"torch_dtype={dtype}"]
    lines += _quantisation(plan, model, dtype, options)
    lines.append(f"pipe = {cls}.from_pretrained({repository!r}, {', '.join(options)})")
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
