"""The answers that the search tries: ways to place, times ways to decode, times ways to store, as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from oomdoctor_evals.generator.family import Family, edited
from oomdoctor_evals.values import QUALITY_ORDER, QualityClass, Rules

_GROUP = (
    '{pipe}.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream={stream})'
)
_BLOCK = (
    '{pipe}.{denoiser}.enable_group_offload(onload_device=torch.device("cuda"), offload_type="block_level", '
    "num_blocks_per_group=1, use_stream=True)\n"
    '{pipe}.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True, '
    'exclude_modules=["{denoiser}"])'
)
_RELEASE = (
    '{pipe}.{denoiser}.enable_group_offload(onload_device=torch.device("cuda"), offload_type="block_level", '
    "num_blocks_per_group=1, use_stream=False)\n"
    '{pipe}.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=False, '
    'exclude_modules=["{denoiser}"])'
)

PLACEMENTS: dict[str, str] = {
    "resident": '{pipe}.to("cuda")',
    "model_offload": "{pipe}.enable_model_cpu_offload()",
    "block_stream": _BLOCK,
    "leaf_stream": _GROUP.replace("{stream}", "True"),
    "leaf_stream_thrifty": _GROUP.replace("{stream}", "True, low_cpu_mem_usage=True"),
    "leaf": _GROUP.replace("{stream}", "False"),
    "block": _RELEASE,
    "sequential": "{pipe}.enable_sequential_cpu_offload()",
}
"""Fastest first."""
DECODING = {"": "", "tiling": "{pipe}.vae.enable_tiling()", "slicing": "{pipe}.vae.enable_slicing()"}
FP8 = "{pipe}.{denoiser}.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype={dtype})"
QUANT = {
    "nf4": ("bitsandbytes_4bit", '{{"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": {dtype}}}'),
    "int8": ("bitsandbytes_8bit", '{{"load_in_8bit": True}}'),
}  # fmt: skip
_SLIGHT, _NOTICEABLE = "slight", "noticeable"


@dataclass(frozen=True)
class Candidate:
    """One answer to try."""

    name: str
    source: str
    quality: QualityClass
    quantised: bool
    placement: str
    packages: tuple[str, ...] = ()

    def allowed(self, rules: Rules) -> bool:
        """By quality and storage; time and packages are looked at when it has run."""
        if QUALITY_ORDER.index(self.quality) > QUALITY_ORDER.index(rules.quality):
            return False
        return not (self.quantised and rules.quantise == "forbid")


def candidates(family: Family, source: str) -> Iterator[Candidate]:
    """All of them: those of the family first, then the grid."""
    for name, edits in family.extra.items():
        quality: QualityClass = _SLIGHT if "tiling" in name or "fp8" in name else "identical"  # type: ignore[assignment]
        quality = _NOTICEABLE if "nf4" in name else quality  # type: ignore[assignment]
        yield Candidate(name, edited(source, edits), quality, "nf4" in name, "extra")
    if not family.place:
        return
    for placement in PLACEMENTS:
        for storage in ("", "fp8", "int8", "nf4"):
            if storage in QUANT and (not family.load or placement not in ("resident", "model_offload")):
                continue
            if storage == "int8" and placement == "model_offload":
                continue  # 8-bit bitsandbytes weights cannot be moved
            for decoding in DECODING:
                if decoding == "slicing" and not family.batched:
                    continue
                name = "+".join(filter(None, (placement, storage, decoding)))
                if family.only is None or name in family.only:
                    yield candidate(family, source, placement, storage, decoding)


def candidate(family: Family, source: str, placement: str, storage: str = "", decoding: str = "") -> Candidate:
    """One cell of the grid, written into the script."""
    words = {"pipe": "pipe", "denoiser": family.denoiser, "dtype": family.dtype}
    indent = family.place[: len(family.place) - len(family.place.lstrip())]
    lines = []
    if storage == "fp8":
        lines.append(FP8.format(**words))
    lines.append(PLACEMENTS[placement].format(**words))
    if decoding:
        lines.append(DECODING[decoding].format(**words))
    text = "\n".join(indent + line for part in lines for line in part.split("\n"))
    patched = edited(source, ((family.place, text),))
    if storage in QUANT:
        backend, kwargs = QUANT[storage]
        names = ", ".join(f'"{n}"' for n in (family.denoiser, *family.big))
        config = (
            f'quantization_config=PipelineQuantizationConfig(quant_backend="{backend}", '
            f"quant_kwargs={kwargs.format(**words)}, components_to_quantize=[{names}]), {family.load}"
        )
        patched = "from diffusers import PipelineQuantizationConfig\n" + edited(patched, ((family.load, config),))
    quality: QualityClass = "identical"
    if decoding == "tiling" or storage in ("fp8", "int8"):
        quality = "slight"
    if storage == "nf4":
        quality = "noticeable"
    name = "+".join(filter(None, (placement, storage, decoding)))
    return Candidate(
        name, patched, quality, storage in QUANT, placement, ("bitsandbytes",) if storage in QUANT else ()
    )  # fmt: skip
