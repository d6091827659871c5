"""The cells of the coverage bench: for each model a plain call, and for each technique how it is written into it.

A technique is written by the product's own rewriter where that agrees; where it does not, the direct lines are used, so
that the library itself says whether it is possible.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from oomdoctor.errors import OomDoctorError
from oomdoctor.models import catalogue
from oomdoctor.rewrite import rewrite
from oomdoctor.script.harness import harness_for_model
from oomdoctor.techniques.facts import pipeline_facts
from oomdoctor.values import Strategy

DTYPE = "torch.bfloat16"
PLACE = 'pipe.to("cuda")'


@dataclass
class Model:
    """One entry of the catalogue and what the techniques want to know about it."""

    id: str
    pipeline: str | None
    parts: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Component with weights -> (library, class)."""
    call: dict[str, object] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    """Arguments of the pipeline's call."""

    @property
    def denoisers(self) -> list[str]:
        facts = pipeline_facts(self.pipeline)
        named = facts.denoisers if facts else ("transformer", "unet", "prior", "decoder")
        return [n for n in named if n in self.parts]

    @property
    def vae(self) -> str | None:
        return next((n for n in ("vae", "vqgan", "movq") if n in self.parts), None)

    @property
    def text_encoders(self) -> list[str]:
        """The large ones: CLIP's are not worth a quantiser."""
        names = [
            n for n, (library, _) in self.parts.items() if n.startswith("text_encoder") and library == "transformers"
        ]
        return [n for n in names if "CLIP" not in self.parts[n][1]]


@dataclass
class Text:
    """A script in three parts, to be edited."""

    imports: list[str]
    load: str
    after: list[str]
    place: list[str]
    call: list[str]

    def __str__(self) -> str:
        return "\n".join([*self.imports, "", self.load, *self.after, *self.place, *self.call, ""])


Write = Callable[[Model, Text], "Text | None"]


@dataclass(frozen=True)
class Technique:
    """``strategy``: an id for the rewriter, built for a model (None: not for that model); ``write``: direct lines."""

    name: str
    write: Write
    strategy: Callable[[Model], str | None] = lambda model: None
    group: str = ""


def models(wanted: list[str]) -> list[Model]:
    """The catalogue, or those of it whose id contains one of ``wanted``."""
    import diffusers

    out = []
    for name, entry in catalogue().items():
        if wanted and not any(w.lower() in name.lower() for w in wanted):
            continue
        parts = {}
        for part, facts in entry["components"].items():
            if facts and "params" in facts:
                library, _, cls = facts["class"].rpartition(".")
                parts[part] = (library, cls)
        call = default_call(getattr(diffusers, entry["pipeline"])) if entry["pipeline"] else {}
        call |= SIZES.get(name, {})
        cls = getattr(diffusers, entry["pipeline"] or "", None)
        takes = tuple(inspect.signature(cls.__call__).parameters) if cls else ()
        out.append(Model(name, entry["pipeline"], parts, call, takes))
    return out


SIZES: dict[str, dict[str, object]] = {
    # The config's own 2400 x 2400 pixels are more than the decoder of this model can cut into pieces.
    "zai-org/CogVideoX1.5-5B": {"height": 768, "width": 1360},
}
STEPS = ("num_inference_steps", "prior_num_inference_steps", "num_prior_inference_steps")


def default_call(pipeline: Any) -> dict[str, object]:
    """The fewest arguments that a pipeline's call needs: two steps, a prompt, pictures where they are required."""
    parameters = inspect.signature(pipeline.__call__).parameters
    call: dict[str, object] = {}
    if "prompt" in parameters:
        call["prompt"] = None
    for name in ("image", "mask_image", "control_image", "video"):
        optional = pipeline.__name__ in IMAGE_IS_OPTIONAL
        if name in parameters and not optional and name_is_needed(pipeline.__name__, name, parameters):
            call[name] = None
    call |= {name: 2 for name in STEPS if name in parameters}
    if "strength" in parameters and "image" in call:
        call["strength"] = 1.0  # of two steps, a smaller strength leaves none
    return call


IMAGE_IS_OPTIONAL = {"Flux2Pipeline", "Flux2KleinPipeline", "StableDiffusion3Pipeline", "QwenImagePipeline"}


def name_is_needed(pipeline: str, name: str, parameters: Any) -> bool:
    """Whether a picture has to be given: pipelines that make something from one, and give it no usable default."""
    words = (
        "Image2",
        "ImageTo",
        "Img2Img",
        "Inpaint",
        "Edit",
        "Control",
        "Fill",
        "Kontext",
        "VideoToWorld",
        "Video2World",
        "Upscale",
    )
    if name == "video" and "image" in parameters:
        return False
    return any(w in pipeline for w in words) or parameters[name].default is inspect.Parameter.empty


def plain(model: Model) -> Text | None:
    """The script without any technique."""
    if model.pipeline is None:
        part, (library, cls) = next(iter(model.parts.items()))
        folder = "" if part == "." else f", subfolder={part!r}"
        load = f"pipe = {cls}.from_pretrained({model.id!r}{folder}, torch_dtype={DTYPE})"
        return Text(["import torch", f"from {library} import {cls}"], load, [], [PLACE], [])
    source = harness_for_model(model.pipeline, model.id, "bfloat16", model.call)
    lines = [line for line in source.splitlines() if line and not line.startswith("#")]
    at = next(i for i, line in enumerate(lines) if line.startswith("pipe = "))
    return Text(lines[:at], lines[at], [], [lines[at + 1]], lines[at + 2 :])


def written(model: Model, technique: Technique, versions: dict[str, str | None]) -> tuple[str, str] | None:
    """(script, how): with ``technique`` in it, by the rewriter or directly; None where it has no meaning."""
    text = plain(model)
    assert text is not None
    if technique.name == "plain":
        return str(text), "plain"
    if model.pipeline is None:
        return None
    strategy = technique.strategy(model)
    if strategy is not None:
        try:
            patch = rewrite(str(text), Strategy.parse(strategy), versions=versions)
            if patch.changed and not patch.by_hand:
                return patch.source, "rewritten"
        except OomDoctorError:
            pass
    direct = technique.write(model, text)
    return None if direct is None else (str(direct), "direct")


# ------------------------------------------------------------------------------------------------ the techniques
def _instead(*lines: str) -> Write:
    """The lines stand where the pipeline was put on the card."""

    def write(model: Model, text: Text) -> Text:
        text.place = list(lines)
        return text

    return write


def _each(template: str, which: str = "denoisers", imports: tuple[str, ...] = ()) -> Write:
    """One line per denoiser (or for the VAE), before the pipeline goes to the card."""

    def write(model: Model, text: Text) -> Text | None:
        names = model.denoisers if which == "denoisers" else [n for n in (model.vae,) if n]
        text.after = [template.format(name) for name in names]
        text.imports += imports
        return text if names else None

    return write


def _pipe(line: str, imports: tuple[str, ...] = ()) -> Write:
    def write(model: Model, text: Text) -> Text:
        text.after = [line]
        text.imports += imports
        return text

    return write


def _quantised(ours: str, theirs: str, imports: tuple[str, ...]) -> Write:
    """``quant_mapping`` with one config object for diffusers models and one for transformers models."""

    def write(model: Model, text: Text) -> Text | None:
        rows = [f"{n!r}: {ours}" for n in model.denoisers] + [f"{n!r}: {theirs}" for n in model.text_encoders]
        if not model.denoisers:
            return None
        text.imports += ["from diffusers.quantizers import PipelineQuantizationConfig", *imports]
        mapping = f"PipelineQuantizationConfig(quant_mapping={{{', '.join(rows)}}})"
        text.load = text.load.replace(f"torch_dtype={DTYPE})", f"torch_dtype={DTYPE}, quantization_config={mapping})")
        return text

    return write


def _gguf(model: Model, text: Text) -> Text | None:
    if not model.denoisers:
        return None
    name = model.denoisers[0]
    cls = model.parts[name][1]
    text.imports += [f"from diffusers import {cls}, GGUFQuantizationConfig"]
    made = (
        f"{cls}.from_single_file('./{name}-Q4_K_S.gguf', config={model.id!r}, subfolder={name!r}, "
        f"quantization_config=GGUFQuantizationConfig(compute_dtype={DTYPE}), torch_dtype={DTYPE})"
    )
    text.load = text.load.replace(f"torch_dtype={DTYPE})", f"torch_dtype={DTYPE}, {name}={made})")
    return text


def _names(prefix: str) -> Callable[[Model], str | None]:
    """``bnb_nf4(transformer, text_encoder_2)``: the denoisers and the large text encoders."""

    def strategy(model: Model) -> str | None:
        names = [*model.denoisers, *model.text_encoders]
        return f"{prefix}({', '.join(names)})" if names else None

    return strategy


def _fixed(text: str) -> Callable[[Model], str | None]:
    return lambda model: text


def _denoisers(prefix: str) -> Callable[[Model], str | None]:
    return lambda model: f"{prefix}({', '.join(model.denoisers)})" if model.denoisers else None


_GROUP = 'pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_device=torch.device("cpu"), {})'
_BNB = (
    "from diffusers import BitsAndBytesConfig",
    "from transformers import BitsAndBytesConfig as TBitsAndBytesConfig",
)
_NF4 = "(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype=torch.bfloat16)"
_CACHES = "from diffusers.hooks import {0}"


def _torchao(config: str, arguments: str = "") -> Write:
    imports = (
        "from diffusers import TorchAoConfig", "from transformers import TorchAoConfig as TTorchAoConfig",
        f"from torchao.quantization import {config}",
    )  # fmt: skip
    made = f"{config}({arguments})"
    return _quantised(f"TorchAoConfig({made})", f"TTorchAoConfig({made})", imports)


def _cache(config: str, arguments: str = "") -> Write:
    imports = (f"from diffusers.hooks import {config}",)
    return _each(f"pipe.{{0}}.enable_cache({config}({arguments}))", imports=imports)


def _faster(model: Model, text: Text) -> Text | None:
    """FasterCache wants to know how the latents are laid out."""
    layout = "BFCHW" if "CogVideoX" in (model.pipeline or "") else "BCFHW" if "num_frames" in model.takes else "BCHW"
    return _cache(
        "FasterCacheConfig",
        "spatial_attention_block_skip_range=2, spatial_attention_timestep_skip_range=(-1, 681), "
        "current_timestep_callback=lambda: pipe.current_timestep, attention_weight_callback=lambda _: 0.3, "
        f"tensor_format='{layout}'",
    )(model, text)


def _compile(model: Model, text: Text) -> Text | None:
    text.place = [PLACE, *(f"pipe.{n}.compile_repeated_blocks(fullgraph=True)" for n in model.denoisers)]
    return text if model.denoisers else None


def _compile_full(model: Model, text: Text) -> Text | None:
    text.place = [PLACE, *(f"pipe.{n} = torch.compile(pipe.{n}, mode='max-autotune')" for n in model.denoisers)]
    return text if model.denoisers else None


TECHNIQUES = {
    t.name: t
    for t in (
        Technique("plain", lambda m, t: t),
        Technique("model_offload", _instead("pipe.enable_model_cpu_offload()"), _fixed("model_offload"), "offload"),
        Technique("sequential_offload", _instead("pipe.enable_sequential_cpu_offload()"), _fixed("sequential_offload")),
        Technique(
            "group_block",
            _instead(_GROUP.format('offload_type="block_level", num_blocks_per_group=2')),
            _fixed("group_offload(block, blocks=2)"),
        ),
        Technique("group_leaf", _instead(_GROUP.format('offload_type="leaf_level"')), _fixed("group_offload(leaf)")),
        Technique(
            "group_leaf_stream",
            _instead(_GROUP.format('offload_type="leaf_level", use_stream=True')),
            _fixed("group_offload(leaf, stream=true)"),
        ),
        Technique(
            "group_low_cpu_mem",
            _instead(_GROUP.format('offload_type="leaf_level", use_stream=True, low_cpu_mem_usage=True')),
            _fixed("group_offload(leaf, stream=true, low_cpu_mem=true)"),
        ),
        Technique(
            "group_disk",
            _instead(_GROUP.format('offload_type="leaf_level", offload_to_disk_path="offload"')),
            _fixed("group_offload(leaf, disk=true)"),
        ),
        Technique(
            "fp8_casting",
            _each(f"pipe.{{0}}.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype={DTYPE})"),
            _denoisers("fp8_casting"),
        ),
        Technique(
            "bnb_nf4", _quantised(f"BitsAndBytesConfig{_NF4}", f"TBitsAndBytesConfig{_NF4}", _BNB), _names("bnb_nf4")
        ),
        Technique(
            "bnb_int8",
            _quantised("BitsAndBytesConfig(load_in_8bit=True)", "TBitsAndBytesConfig(load_in_8bit=True)", _BNB),
            _names("bnb_int8"),
        ),
        Technique("torchao_int8", _torchao("Int8WeightOnlyConfig"), _names("torchao_int8")),
        Technique("torchao_int4", _torchao("Int4WeightOnlyConfig"), _names("torchao_int4")),
        Technique("torchao_fp8", _torchao("Float8WeightOnlyConfig"), _names("torchao_fp8")),
        Technique("torchao_int8_dynamic", _torchao("Int8DynamicActivationInt8WeightConfig")),
        Technique("torchao_fp8_dynamic", _torchao("Float8DynamicActivationFloat8WeightConfig")),
        Technique("gguf", _gguf),
        Technique(
            "quanto",
            _quantised(
                "QuantoConfig(weights_dtype='int8')",
                "TQuantoConfig(weights='int8')",
                ("from diffusers import QuantoConfig", "from transformers import QuantoConfig as TQuantoConfig"),
            ),
        ),
        Technique("vae_tiling", _each("pipe.{0}.enable_tiling()", "vae"), _fixed("vae_tiling")),
        Technique("vae_slicing", _each("pipe.{0}.enable_slicing()", "vae"), _fixed("vae_slicing")),
        Technique("vae_framewise", _each("pipe.{0}.use_framewise_decoding = True", "vae"), _fixed("vae_framewise")),
        Technique("attention_native_flash", _each("pipe.{0}.set_attention_backend('_native_flash')")),
        Technique("attention_native_math", _each("pipe.{0}.set_attention_backend('_native_math')")),
        Technique("attention_native_cudnn", _each("pipe.{0}.set_attention_backend('_native_cudnn')")),
        Technique("attention_native_efficient", _each("pipe.{0}.set_attention_backend('_native_efficient')")),
        Technique("attention_flex", _each("pipe.{0}.set_attention_backend('flex')")),
        Technique("attention_sage", _each("pipe.{0}.set_attention_backend('sage')")),
        Technique("attention_flash_3_hub", _each("pipe.{0}.set_attention_backend('_flash_3_hub')")),
        Technique("attention_flash", _each("pipe.{0}.set_attention_backend('flash')")),
        Technique("attention_xformers", _pipe("pipe.enable_xformers_memory_efficient_attention()")),
        Technique("attention_slicing", _pipe("pipe.enable_attention_slicing()"), _fixed("attention_slicing")),
        Technique("channels_last", _each("pipe.{0}.to(memory_format=torch.channels_last)"), _fixed("channels_last")),
        Technique("fuse_qkv", _each("pipe.{0}.fuse_qkv_projections()"), _fixed("fuse_qkv")),
        Technique("cache_first_block", _cache("FirstBlockCacheConfig", "threshold=0.2"), _fixed("cache(first_block)")),
        Technique(
            "cache_pyramid",
            _cache(
                "PyramidAttentionBroadcastConfig",
                "spatial_attention_block_skip_range=2, spatial_attention_timestep_skip_range=(100, 800), "
                "current_timestep_callback=lambda: pipe.current_timestep",
            ),
        ),
        Technique("cache_faster", _faster),
        Technique("cache_taylorseer", _cache("TaylorSeerCacheConfig", "cache_interval=2, max_order=1")),
        Technique("compile_regional", _compile, _fixed("compile(regional)")),
        Technique("compile_full", _compile_full, _fixed("compile(full)")),
    )
}
