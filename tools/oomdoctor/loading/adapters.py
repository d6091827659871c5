"""IP-Adapters: the weights that a running ``load_ip_adapter`` expects, from the shapes of its UNet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from oomdoctor.loading import hooks, session, snapshot

_QUERIES, _PLUS_TOKENS, _TOKENS = 16, 16, 4


class _Loads(threading.local):
    """The pipelines whose ``load_ip_adapter`` is running in this thread, innermost last."""

    def __init__(self) -> None:
        self.pipelines: list[Any] = []


_loads = _Loads()


def expected_file(repo_id: str, inside: str) -> Path | None:
    """A marker for the IP-Adapter file that is being loaded, or None when none is or the file is another one."""
    name = inside.rsplit("/", 1)[-1]
    if not _loads.pipelines or not name.startswith(("ip-adapter", "ip_adapter")):
        return None
    unet = getattr(_loads.pipelines[-1], "unet", None)
    if unet is None:
        return None
    file = session.current().scratch / "adapters" / repo_id.replace("/", "--") / inside
    tensors = _table(unet, name, inside)
    snapshot.write_marker(file, {"kind": "table", "nested": ["image_proj", "ip_adapter"], "tensors": tensors})
    session.current().note(f"the IP-Adapter {repo_id}/{inside} is built from the shapes of the UNet it goes to.")
    return file


def expected_names(repo_id: str) -> list[str]:
    """The files that a repository of the adapter load under way is taken to hold; pipelines name theirs."""
    return []


def _table(unet: Any, name: str, inside: str) -> dict[str, tuple[str, list[int]]]:
    cross = int(unet.config.cross_attention_dim)
    # Adapters of SDXL see through OpenCLIP bigG (1280) unless their name says ViT-H, those of SD 1.5 through ViT-H (1024).
    sees = 1280 if "sdxl" in inside and "vit-h" not in inside else 1024
    tensors = _resampler(cross, "sdxl" in inside) if "plus" in name else _projection(cross, sees)
    index = 1
    for processor, width in _cross_attentions(unet):
        del processor
        for key in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{index}.{key}.weight"] = ("F16", [width, cross])
        index += 2
    return tensors


def _cross_attentions(unet: Any) -> list[tuple[str, int]]:
    """(name, hidden size) of each cross-attention of a UNet, in the order that the loaders count them."""
    widths = list(unet.config.block_out_channels)
    found = []
    for name in unet.attn_processors:
        if name.endswith("attn1.processor") or "motion_modules" in name:
            continue
        if name.startswith("mid_block"):
            width = widths[-1]
        elif name.startswith("up_blocks"):
            width = widths[::-1][int(name.split(".")[1])]
        else:
            width = widths[int(name.split(".")[1])]
        found.append((name, width))
    return found


def _projection(cross: int, sees: int) -> dict[str, tuple[str, list[int]]]:
    return {
        "image_proj.proj.weight": ("F16", [_TOKENS * cross, sees]),
        "image_proj.proj.bias": ("F16", [_TOKENS * cross]),
        "image_proj.norm.weight": ("F16", [cross]),
        "image_proj.norm.bias": ("F16", [cross]),
    }


def _resampler(cross: int, is_sdxl: bool) -> dict[str, tuple[str, list[int]]]:
    """The perceiver of the "plus" adapters: 4 layers over the 1280 wide hidden states of ViT-H."""
    width = 1280 if is_sdxl else 768
    shapes: dict[str, list[int]] = {
        "latents": [1, _QUERIES, width],
        "proj_in.weight": [width, 1280],
        "proj_in.bias": [width],
        "proj_out.weight": [cross, width],
        "proj_out.bias": [cross],
        "norm_out.weight": [cross],
        "norm_out.bias": [cross],
    }
    for layer in range(4):
        base = f"layers.{layer}"
        for norm in ("norm1", "norm2"):
            shapes[f"{base}.0.{norm}.weight"] = shapes[f"{base}.0.{norm}.bias"] = [width]
        shapes[f"{base}.0.to_q.weight"] = [width, width]
        shapes[f"{base}.0.to_kv.weight"] = [2 * width, width]
        shapes[f"{base}.0.to_out.weight"] = [width, width]
        shapes[f"{base}.1.0.weight"] = shapes[f"{base}.1.0.bias"] = [width]
        shapes[f"{base}.1.1.weight"] = [4 * width, width]
        shapes[f"{base}.1.3.weight"] = [width, 4 * width]
    return {f"image_proj.{name}": ("F16", shape) for name, shape in shapes.items()}


def patch(module: ModuleType) -> None:
    """After ``import diffusers.loaders.ip_adapter``."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def load_ip_adapter(self: Any, *args: Any, **options: Any) -> Any:
            _loads.pipelines.append(self)
            try:
                return original(self, *args, **options)
            finally:
                _loads.pipelines.pop()

        return load_ip_adapter

    hooks.wrap_method(module.IPAdapterMixin, "load_ip_adapter", make)
