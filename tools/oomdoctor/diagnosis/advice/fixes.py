"""Which techniques address a cause, best first: tags of the techniques' own."""

from __future__ import annotations

from oomdoctor.diagnosis.case import Case
from oomdoctor.values import Kind, Stage

_BY_STAGE = {
    Stage.LOAD: ("dtype", "offload", "quantization", "group_offload", "loading", "multi_gpu"),
    Stage.QUANTIZE: ("loading", "quantization", "offload"),
    Stage.PLACE: ("offload", "group_offload", "dtype", "quantization", "layerwise_casting", "multi_gpu"),
    Stage.TEXT_ENCODE: ("text_encoder_release", "offload", "quantization", "group_offload", "dtype"),
    Stage.IMAGE_ENCODE: ("offload", "group_offload", "smaller_job"),
    Stage.DENOISE: (
        "offload", "group_offload", "quantization", "layerwise_casting", "text_encoder_release", "attention", "batch",
        "smaller_job", "multi_gpu",
    ),
    Stage.VAE_ENCODE: ("vae_memory", "offload", "smaller_job", "batch"),
    Stage.VAE_DECODE: ("vae_memory", "offload", "smaller_job", "batch"),
    Stage.COMPILE: ("compile", "offload", "batch", "smaller_job"),
    Stage.TRAINING: ("batch", "smaller_job", "environment"),
    Stage.POST: ("offload", "vae_memory", "batch"),
    Stage.UNKNOWN: ("offload", "group_offload", "quantization", "dtype", "vae_memory", "smaller_job"),
}  # fmt: skip
_VAE = (Stage.VAE_DECODE, Stage.VAE_ENCODE)
_HOST = {
    "commit": ("environment", "host_memory", "loading"),
    "wsl": ("environment", "host_memory", "group_offload"),
    "rlimit": ("environment", "host_memory"),
    "paging_file": ("environment", "loading", "host_memory", "dtype", "quantization"),
    "access_violation": ("environment", "loading", "host_memory"),
    "killed": ("host_memory", "loading", "dtype", "quantization", "environment"),
    "interrupted": ("host_memory", "loading", "dtype", "quantization", "environment"),
    "killed_pinned": ("host_memory", "group_offload", "quantization", "environment"),
    "allocator": ("loading", "dtype", "quantization", "host_memory"),
}


def fix_families(case: Case) -> tuple[str, ...]:
    """Tags, best first: a wrong dtype before all else, other accidents of the script after what the cause calls for."""
    tags = [finding.tag for finding in case.findings]
    first = ["environment"] if case.regression else []
    first += [tag for tag in tags if tag == "dtype" and case.kind is not Kind.OTHER_PROCESS]
    called_for = _by_cause(case)
    if "enable_model_cpu_offload" in case.offloading:
        called_for = tuple(tag for tag in called_for if tag != "offload")
    return tuple(dict.fromkeys((*first, *called_for, *tags)))


def _by_cause(case: Case) -> tuple[str, ...]:
    kind, stage = case.kind, case.stage
    if kind is Kind.HOST_RAM:
        return _HOST[case.verdict.why]
    if kind is Kind.PINNED_RAM:
        return ("host_memory", "group_offload", "environment")
    if kind is Kind.OTHER_PROCESS:
        return ("environment", *(_BY_STAGE[stage][:2]))
    if kind is Kind.FRAGMENTATION:
        first = ("allocator",) if case.device == "cuda" and not case.context.windows else ()
        return (*first, *(_BY_STAGE[stage] if stage is not Stage.UNKNOWN else ("vae_memory", "offload", "smaller_job")))
    if kind is Kind.SINGLE_TENSOR:
        if stage in _VAE:
            return ("vae_memory", "smaller_job", "batch", "environment")
        if case.verdict.why == "scores":
            return ("attention", "batch", "smaller_job", "environment")
        if stage is Stage.TRAINING:
            return _BY_STAGE[stage]
        return ("attention", "smaller_job", "batch", "vae_memory")
    if case.verdict.why == "over_cap":
        return ("environment", *_BY_STAGE[stage])
    if case.verdict.why in ("init", "driver", "headless"):
        return (*_BY_STAGE[stage][:3], "environment")
    return _BY_STAGE[stage]
