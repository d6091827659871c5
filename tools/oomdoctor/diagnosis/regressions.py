"""Versions of libraries that need more memory than their neighbours: to be mended before any technique is applied.

conv3d: torch 2.9.0 switched cuDNN off for conv3d in half precision; the fallback takes 3 to 17 times the memory. 2.9.1
switches it on again only when cuDNN 9.15 or newer is installed, which its wheels do not bring (pytorch issue 166643).
"""

from __future__ import annotations

from oomdoctor.diagnosis.context import Context
from oomdoctor.values import DeviceFamily, Frame, Stage

_GOOD_CUDNN = (9, 15)


def known(ctx: Context, frames: tuple[Frame, ...], device: DeviceFamily | None) -> str | None:
    """The sentence about a regression that the versions and the frames establish."""
    torch = ctx.versions.get("torch", "")
    if device != "cuda" or not (torch == "2.9" or torch.startswith("2.9.")) or not _convolves_in_3d(frames):
        return None
    cudnn = max((_version(v) for k, v in ctx.versions.items() if k.startswith("nvidia-cudnn")), default=())
    if torch.startswith("2.9.1") and cudnn >= _GOOD_CUDNN:
        return None
    return (
        f"torch {torch} needs 3 to 17 times the memory for conv3d in half precision, because it does not use cuDNN there: "
        "use torch 2.9.1 with nvidia-cudnn-cu12 (or -cu13) 9.15 or newer, or torch 2.8."
    )


def possible(ctx: Context, frames: tuple[Frame, ...], device: DeviceFamily | None, stage: Stage) -> str | None:
    """The same when the version of torch is not known."""
    if device != "cuda" or "torch" in ctx.versions or not _convolves_in_3d(frames):
        return None
    if stage not in (Stage.VAE_DECODE, Stage.VAE_ENCODE):
        return None
    return (
        "If this is torch 2.9: its conv3d needs 3 to 17 times the memory in half precision; torch 2.9.1 with cuDNN 9.15 or "
        "newer, or torch 2.8, does not."
    )


def _convolves_in_3d(frames: tuple[Frame, ...]) -> bool:
    return any("conv3d" in f"{f.function} {f.code}".lower() for f in frames)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
