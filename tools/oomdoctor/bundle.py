"""``oom-doctor report``: what a maintainer needs to see of a failure, and nothing that the user wrote.

From a script only counts, names of library classes and sizes are taken; from a traceback only numbers, the reading and
frames inside known libraries. No prompt, path, variable, comment, host or user name; a model id only when it is one of
our own catalogue. Whatever is not on these lists stays out.
"""

from __future__ import annotations

import re
from typing import Any

from oomdoctor import __version__
from oomdoctor.checkup import checkup
from oomdoctor.diagnosis import diagnose
from oomdoctor.errors import OomDoctorError
from oomdoctor.hardware import detect_hardware
from oomdoctor.models import model_ids
from oomdoctor.script import read_script
from oomdoctor.techniques.facts import model_facts, pipeline_facts
from oomdoctor.values import Diagnosis, Known, PipelineUse, Script

LIBRARIES = (
    "torch", "diffusers", "transformers", "accelerate", "bitsandbytes", "torchao", "gguf", "peft", "safetensors",
    "huggingface_hub", "xformers", "oomdoctor", "oomdoctor_mcp",
)  # fmt: skip
FRAME = re.compile(
    rf'File "[^"\n]*[/\\]((?:{"|".join(LIBRARIES)})[/\\][\w/\\.-]+\.py)", line (\d+), in (<module>|[A-Za-z_]\w*)'
)
SIZES = ("height", "width", "num_frames", "num_inference_steps", "num_images_per_prompt", "num_videos_per_prompt", "batch_size",
         "max_sequence_length", "decode_chunk_size", "guidance_scale", "true_cfg_scale")  # fmt: skip
NUMBERS = (
    "is_oom", "kind", "stage", "device", "gpu_index", "requested_bytes", "capacity_bytes", "free_bytes",
    "allocated_bytes", "reserved_unallocated_bytes", "private_pool_bytes", "allowed_bytes", "process_bytes",
    "other_process_bytes", "script_line", "confidence", "fix_families",
)  # fmt: skip
ERRORS = re.compile(r"(?:torch\.(?:cuda\.)?)?[A-Z]\w*(?:Error|Exception|Interrupt)")
COMPONENTS = re.compile(r"(?:text_encoder|transformer|unet|vae|image_encoder|controlnet|tokenizer)(?:_\d)?")


def bundle(
    script: str | None, traceback: str | None, *, python: str | None = None, check: bool = True
) -> dict[str, Any]:
    """The report as plain data. ``check=False`` leaves the checkup out (it takes a few seconds)."""
    machine = detect_hardware(python=python)
    report: dict[str, Any] = {
        "oom_doctor": __version__,
        "versions": machine.versions,
        "os": machine.os,
        "driver_model": machine.driver_model,
        "gpus": [g.model_dump(mode="json", exclude={"processes"}) for g in machine.gpus],
        "ram": machine.ram.model_dump(mode="json"),
    }
    if check:
        report["checks"] = {c.name: c.state for c in checkup(python)}
    if script is not None:
        report["script"] = script_facts(script)
    if traceback is not None:
        report["traceback"] = traceback_facts(traceback, script)
    return report


def script_facts(source: str) -> dict[str, Any]:
    """Of a script: how long it is, which library classes it loads, with which sizes it calls them."""
    facts: dict[str, Any] = {"lines": source.count("\n") + 1}
    try:
        script = read_script(source)
    except OomDoctorError as error:
        return {**facts, "unreadable": type(error).__name__}
    return {
        **facts,
        "notebook": script.is_notebook,
        "training": script.training,
        "imports": sorted({name.split(".")[0] for name in script.imports.values()} & set(LIBRARIES)),
        "pipelines": [_pipeline(use) for use in script.pipelines],
        "bare_models": len(script.models),
    }


def _pipeline(use: PipelineUse) -> dict[str, Any]:
    return {
        "class": _class(use.class_name),
        "loader": use.loader if use.loader in ("from_pretrained", "from_single_file", "from_pipe") else None,
        "model": use.model.value if use.model.value in model_ids() else "not in the catalogue",
        "dtype": _dtype(use.dtype),
        "quantised": "quantization_config" in use.load_arguments,
        "given_components": len(use.components),
        "adapters": [a.kind for a in use.adapters],
        "techniques": sorted({m for m in (_method(o.method) for o in use.optimisations) if m}),
        "calls": [_call_sizes(c.arguments) for c in use.calls],
        "uncertain": len(use.uncertain),
    }


def _class(name: str | None) -> str | None:
    generic = (
        "DiffusionPipeline",
        "AutoPipelineForText2Image",
        "AutoPipelineForImage2Image",
        "AutoPipelineForInpainting",
    )
    known = name is None or name in generic or pipeline_facts(name) is not None or model_facts(name) is not None
    return name if known else "a class of the user's own"


def _dtype(dtype: Known) -> str | None:
    found = re.fullmatch(
        r"(?:torch\.)?(float32|float16|bfloat16|float8_\w+|half|auto)", str(dtype.value or dtype.text or "")
    )
    return found[1] if found else None


METHOD = re.compile(
    r"(?:^|\.)((?:en|dis)able_(?:model_cpu_offload|sequential_cpu_offload|group_offload|layerwise_casting|tiling|slicing|"
    r"vae_tiling|vae_slicing|attention_slicing|xformers_memory_efficient_attention|forward_chunking|cache|freeu|"
    r"parallelism)|set_attention_backend|compile_repeated_blocks|compile|fuse_qkv_projections|quantize_|"
    r"apply_group_offloading|apply_layerwise_casting|use_framewise_decoding|tile_sample_min_size|tile_latent_min_size)$"
)


def _method(called: str) -> str | None:
    """The library's method at the end of what is called; names that the user gave stay out."""
    found = METHOD.search(called)
    return found[1] if found else None


def _call_sizes(arguments: dict[str, Known]) -> dict[str, Any]:
    return {
        name: arguments[name].value
        for name in SIZES
        if name in arguments and isinstance(arguments[name].value, (int, float))
    }


def traceback_facts(text: str, source: str | None = None) -> dict[str, Any]:
    """Of a traceback: the numbers, how we read it, and its frames inside known libraries."""
    facts: dict[str, Any] = {"lines": text.count("\n") + 1, "frames": frames(text)}
    try:
        reading = diagnose(text, script=_script(source))
    except OomDoctorError as error:
        return {**facts, "unreadable": type(error).__name__}
    return {**facts, **_reading(reading)}


def _script(source: str | None) -> Script | None:
    try:
        return read_script(source) if source is not None else None
    except OomDoctorError:
        return None


def _reading(reading: Diagnosis) -> dict[str, Any]:
    plain = reading.model_dump(mode="json", include=set(NUMBERS))
    error, component = reading.error_type or "", reading.component or ""
    known = error.startswith("torch.") or error in (
        "RuntimeError",
        "MemoryError",
        "OSError",
        "OutOfMemoryError",
        "ValueError",
    )
    return {
        **plain,
        "error_type": error if known and ERRORS.fullmatch(error) else None,
        "component": component if COMPONENTS.fullmatch(component) else None,
    }


def frames(text: str) -> list[str]:
    """``library/path.py:LINE function`` of every frame inside a known library, as they stand."""
    return [f"{m[1]}:{m[2]} {m[3]}".replace("\\", "/") for m in FRAME.finditer(text)]
