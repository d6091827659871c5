"""Popular advice that would not help in this case, each with its reason. The hint inside the message is one of them."""

from __future__ import annotations

from oomdoctor.diagnosis import numbers as figures
from oomdoctor.diagnosis.case import Case
from oomdoctor.units import human
from oomdoctor.values import Kind, Stage

_VAE = (Stage.VAE_DECODE, Stage.VAE_ENCODE)


def not_helpful(case: Case) -> tuple[str, ...]:
    """Sentences ``advice: reason``."""
    return tuple(
        text
        for text in (
            _allocator_hint(case),
            _empty_cache(case),
            _vram_advice_for_host(case),
            _offload_for_one_tensor(case),
            _steps(case),
            _watermark(case),
            _model_offload_for_one_component(case),
            _neighbour(case),
            _rank_of_lora(case),
        )
        if text
    )


def _allocator_hint(case: Case) -> str | None:
    if case.kind is Kind.NOT_MEMORY or case.device not in ("cuda", "hip"):
        return None
    if case.kind is Kind.FRAGMENTATION:
        if case.device == "hip" or case.context.zluda:
            return (
                "expandable_segments:True: the hint in the message fits these figures, but ROCm supports it only in "
                "part (not on Windows; some RDNA4 setups crash with it)."
            )
        if case.context.windows:
            return "expandable_segments:True: it is not supported on Windows."
        if case.context.expandable_on:
            return "expandable_segments:True: it was already on."
        return None
    if case.context.expandable_on:
        return "expandable_segments:True: it was already on, and it cannot create memory."
    n = case.numbers
    if n.cached is not None:
        return (
            f"expandable_segments:True (the hint in the message): only {human(n.cached)} are cached and unused, so there "
            "is nothing to defragment; the message prints that hint every time."
        )
    return "expandable_segments:True or max_split_size_mb: nothing here points to fragmentation."


def _empty_cache(case: Case) -> str | None:
    if case.kind in (Kind.VRAM_CAPACITY, Kind.SINGLE_TENSOR, Kind.LOAD_TIME) and case.device in ("cuda", "hip"):
        return (
            "torch.cuda.empty_cache(): PyTorch already released its unused cache before it raised this error; only "
            "dropping references frees more."
        )
    return None


def _vram_advice_for_host(case: Case) -> str | None:
    if case.kind is Kind.HOST_RAM:
        return "CPU offloading: it moves weights into RAM, which is what ran out."
    if case.kind is Kind.PINNED_RAM:
        return "A smaller picture or VAE tiling: they save GPU memory, which is not what ran out."
    return None


def _offload_for_one_tensor(case: Case) -> str | None:
    if case.kind is not Kind.SINGLE_TENSOR:
        return None
    n, size = case.numbers, figures.limit(case.numbers)
    if n.requested and size and n.requested > size:
        return "Offloading or quantising weights: the one request is larger than the whole card."
    return "Offloading or quantising weights alone: what does not fit is one activation, not the weights."


def _steps(case: Case) -> str | None:
    if case.stage in (Stage.DENOISE, *_VAE) and case.kind in (
        Kind.VRAM_CAPACITY,
        Kind.SINGLE_TENSOR,
        Kind.FRAGMENTATION,
    ):
        return "Fewer inference steps: every step uses the same memory again."
    return None


def _watermark(case: Case) -> str | None:
    if case.device == "mps" and case.kind is Kind.SINGLE_TENSOR:
        return "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0: it lifts the total limit, not the limit on one buffer."
    return None


def _model_offload_for_one_component(case: Case) -> str | None:
    """Model offloading is on already and one component does not fit."""
    used = {o.method for p in (case.script.pipelines if case.script else ()) for o in p.optimisations}
    if case.kind is Kind.VRAM_CAPACITY and "enable_model_cpu_offload" in used:
        return (
            "enable_model_cpu_offload(): it is already on, and it needs the largest component to fit as a whole; "
            "group offloading or quantising that component goes below it."
        )
    return None


def _neighbour(case: Case) -> str | None:
    if case.kind is Kind.OTHER_PROCESS:
        return "Changing this script first: the missing memory is somebody else's."
    return None


def _rank_of_lora(case: Case) -> str | None:
    if case.stage is Stage.TRAINING:
        return "A lower LoRA rank: the adapter's own weights are a small part of what training holds."
    return None
