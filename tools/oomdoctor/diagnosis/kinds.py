"""From what was read to the kind of failure: one decision, its reasons in the order of their strength."""

from __future__ import annotations

from dataclasses import dataclass

from oomdoctor.diagnosis import numbers as figures
from oomdoctor.diagnosis.context import Context
from oomdoctor.diagnosis.families import Sighting
from oomdoctor.diagnosis.stages import Place
from oomdoctor.values import Confidence, Frame, Kind, Stage

LOADING = (Stage.LOAD, Stage.PLACE, Stage.QUANTIZE)
_SCORES = ("get_attention_scores", "baddbmm", "attention_scores", "softmax(", "_math", "@ b.transpose", "q @ k")
_PINS = ("pin_memory", "_pinned", "cudaHostAlloc", "record_stream")


@dataclass(frozen=True)
class Verdict:
    """The kind, a word for why (which the advice is looked up by), and how sure."""

    kind: Kind
    why: str
    confidence: Confidence


def decide(s: Sighting, where: Place, frames: tuple[Frame, ...], ctx: Context) -> Verdict:
    """The kind of the memory failure ``s``."""
    family, n, device = s.family, s.numbers, s.family.device
    if family.kind is Kind.MASKED:
        return _masked(s, where, frames, ctx)
    if family.kind is Kind.HOST_RAM:
        return _host(s, where, ctx)
    if family.kind is Kind.SINGLE_TENSOR:
        return Verdict(Kind.SINGLE_TENSOR, "xpu_block" if device == "xpu" else "mps_buffer", "high")
    if family.name == "unknown_wording":
        return Verdict(Kind.LOAD_TIME if where.stage in LOADING else Kind.VRAM_CAPACITY, "unknown_wording", "low")
    who = figures.owners(n, device)
    if figures.refused_though_free(n, device):
        return _refused(s, ctx, who)
    if who.listed and figures.held_by_others(n, who, device):
        return Verdict(Kind.OTHER_PROCESS, "listed", "high")
    if device == "mps":
        if (
            figures.one_tensor(n, device)
            and n.requested is not None
            and (n.allowed is None or n.requested > n.allowed / 2)
        ):
            return Verdict(Kind.SINGLE_TENSOR, "mps_tensor", "medium")
        return _capacity(where, n.allocated is not None, "mps")
    if figures.fragmented(n):
        return Verdict(
            Kind.FRAGMENTATION,
            "over_cap" if figures.over_cap(n) else "pieces",
            "high" if n.free is not None else "medium",
        )
    if figures.one_tensor(n, device):
        return Verdict(
            Kind.SINGLE_TENSOR, "scores" if _in_scores(frames) else "tensor", "high" if n.capacity else "medium"
        )
    if _in_scores(frames):
        return Verdict(Kind.SINGLE_TENSOR, "scores", "medium")
    if figures.held_by_others(n, who, device):
        return Verdict(Kind.OTHER_PROCESS, "unexplained", "medium")
    if figures.over_cap(n):
        return Verdict(Kind.VRAM_CAPACITY, "over_cap", "high")
    if figures.oversubscribed(n):
        return _capacity(where, True, "oversubscribed")
    if not family.fatal:
        return Verdict(Kind.VRAM_CAPACITY, "warning", "medium")
    return _capacity(where, n.allocated is not None, "full")


def _capacity(where: Place, has_numbers: bool, why: str) -> Verdict:
    confidence: Confidence = (
        "high" if has_numbers and where.sure else ("medium" if has_numbers or where.fair else "low")
    )
    if where.stage in LOADING and where.weight >= 30:
        return Verdict(Kind.LOAD_TIME, why, confidence)
    return Verdict(Kind.VRAM_CAPACITY, why, confidence)


def _in_scores(frames: tuple[Frame, ...]) -> bool:
    """The innermost frames compute attention scores in the open: a math kernel, not a fused one."""
    return any(word in (f.code or "") or word == f.function for f in frames[-3:] for word in _SCORES)


def _masked(s: Sighting, where: Place, frames: tuple[Frame, ...], ctx: Context) -> Verdict:
    name = s.family.name
    if name in ("cuda_driver", "hip_driver"):
        text = " ".join(f"{f.function} {f.code}" for f in frames)
        if any(word in text for word in _PINS):
            return Verdict(Kind.PINNED_RAM, "pin", "high")
        if ctx.offload_words or (ctx.wsl and where.stage is not Stage.TRAINING):
            return Verdict(Kind.PINNED_RAM, "pin_likely", "medium" if ctx.offload_words and ctx.wsl else "low")
        return Verdict(Kind.MASKED, "driver", "medium" if where.fair else "low")
    if name == "nvml_assert":
        return Verdict(Kind.MASKED, "nvml", "medium")
    if name == "cuda_headless":
        return Verdict(Kind.MASKED, "headless", "low")
    if name in ("cudnn_init", "cublas_init"):
        return Verdict(Kind.MASKED, "init", "low")
    return Verdict(Kind.MASKED, "library", "medium")


def _host(s: Sighting, where: Place, ctx: Context) -> Verdict:
    name = s.family.name
    if name == "paging_file":
        return Verdict(Kind.HOST_RAM, "paging_file", "high")
    if name in ("killed", "exit_137"):
        return Verdict(Kind.HOST_RAM, "killed_pinned" if ctx.offload_words else "killed", "medium")
    if name == "access_violation":
        return Verdict(Kind.HOST_RAM, "access_violation", "low")
    if name == "interrupted":
        return Verdict(Kind.HOST_RAM, "interrupted", "low")
    if name == "host_notebook":
        return Verdict(Kind.HOST_RAM, "killed", "high")
    return Verdict(Kind.HOST_RAM, "allocator", "high")


def _refused(s: Sighting, ctx: Context, who: figures.Owners) -> Verdict:
    """Room on the card, and refused all the same."""
    if s.family.device == "xpu":
        return Verdict(Kind.SINGLE_TENSOR, "xpu_block", "high")
    if s.family.device == "mps":
        return Verdict(Kind.VRAM_CAPACITY, "mps", "medium")
    if ctx.wsl:
        return Verdict(Kind.HOST_RAM, "wsl", "medium")
    if ctx.windows or (s.family.device == "cuda" and who.own is None and not s.numbers.processes):
        # Builds for Linux list processes; a message without them comes from Windows or from before torch 2.1.
        return Verdict(Kind.HOST_RAM, "commit", "high" if ctx.windows else "medium")
    return Verdict(Kind.HOST_RAM, "rlimit", "medium")
