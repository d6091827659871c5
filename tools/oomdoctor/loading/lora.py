"""LoRA files and textual inversions: real ones by their headers, absent ones as a stated guess."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from oomdoctor.loading import hooks, session

RANK = 16
"""Rank that an absent LoRA is taken to have, on the attention projections of the denoiser."""
_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0", "to_out", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


class _Loads(threading.local):
    """The pipelines whose ``load_lora_weights`` is running in this thread, innermost last."""

    def __init__(self) -> None:
        self.pipelines: list[Any] = []


_loads = _Loads()


def is_at_hand(place: Any, weight_name: str | None, subfolder: str | None = None) -> bool:
    """Whether an adapter's file is on this machine: a file, a folder, or in the HF cache."""
    place = os.fspath(place)
    if os.path.exists(place):
        return True
    cached = session.current().repos.cached_snapshot(place)
    if cached is None:
        return False
    folder = cached / (subfolder or "")
    if weight_name is not None:
        return (folder / weight_name).is_file()
    return any(f.suffix in (".safetensors", ".bin") for f in folder.glob("*"))


def assumed(pipeline: Any, name: str) -> dict[str, Any]:
    """The state dict of a LoRA nobody has, in PEFT's names, for the denoiser of ``pipeline``."""
    prefix, model = denoiser(pipeline)
    make = session.current().tensor
    state: dict[str, Any] = {}
    for module_name, module in model.named_modules():
        inner = getattr(module, "base_layer", module)
        wide, high = getattr(inner, "in_features", None), getattr(inner, "out_features", None)
        if wide is None or high is None or not module_name.endswith(_PROJECTIONS):
            continue
        key = f"{prefix}.{module_name}"
        state[f"{key}.lora_A.weight"] = make((RANK, int(wide)), torch.bfloat16)
        state[f"{key}.lora_B.weight"] = make((int(high), RANK), torch.bfloat16)
    session.current().note(
        f"the LoRA {name} is not on this machine: it is taken to have rank {RANK} on the attention projections of the "
        f"{prefix}. Load it from a local file to count it exactly."
    )
    return state


def denoiser(pipeline: Any) -> tuple[str, Any]:
    """(name, module) of what denoises in a pipeline. Raises MissingModel when nothing of a known name does."""
    for name in ("transformer", "unet", "prior"):
        model = getattr(pipeline, name, None)
        if isinstance(model, torch.nn.Module):
            return name, model
    raise session.MissingModel(f"{type(pipeline).__name__} has no transformer or unet that an adapter could go to.")


def patch_pipelines(module: ModuleType) -> None:
    """After ``import diffusers.loaders.lora_pipeline``: remember which pipeline loads."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def load_lora_weights(self: Any, *args: Any, **options: Any) -> Any:
            _loads.pipelines.append(self)
            try:
                return original(self, *args, **options)
            finally:
                _loads.pipelines.pop()

        return load_lora_weights

    for cls in list(vars(module).values()):
        if inspect.isclass(cls) and "load_lora_weights" in vars(cls):
            hooks.wrap_method(cls, "load_lora_weights", make)


def patch_base(module: ModuleType) -> None:
    """After ``import diffusers.loaders.lora_base``: what a missing file would have held."""
    original = module._fetch_state_dict
    with_metadata = "metadata" in inspect.signature(original).parameters

    def fetch(*args: Any, **options: Any) -> Any:
        call = inspect.signature(original).bind(*args, **options).arguments
        place = call["pretrained_model_name_or_path_or_dict"]
        name = call.get("weight_name")
        if isinstance(place, dict) or not _loads.pipelines or is_at_hand(place, name, call.get("subfolder")):
            return original(*args, **options)
        state = assumed(_loads.pipelines[-1], f"{place}/{name}" if name else str(place))
        if not with_metadata:
            return state
        return (state, None, None) if call.get("return_file_metadata") else (state, None)

    hooks.replace(module, "_fetch_state_dict", fetch)


def patch_textual_inversion(module: ModuleType) -> None:
    """After ``import diffusers.loaders.textual_inversion``: an absent embedding is one vector."""
    original = module.load_textual_inversion_state_dicts

    def load_states(places: Any, **options: Any) -> list[Any]:
        states = []
        for place in places if isinstance(places, list) else [places]:
            if isinstance(place, (dict, torch.Tensor)) or is_at_hand(
                place, options.get("weight_name"), options.get("subfolder")
            ):
                states += original([place], **options)
                continue
            token = f"<{str(place).rstrip('/').rsplit('/', 1)[-1].split('.')[0]}>"
            width = _loads.pipelines[-1].text_encoder.get_input_embeddings().weight.shape[-1]
            session.current().note(f"the textual inversion {place} is not on this machine: one vector is assumed.")
            states.append({token: torch.zeros(1, width)})
        return states

    def make(method: Callable[..., Any]) -> Callable[..., Any]:
        def load_textual_inversion(self: Any, *args: Any, **options: Any) -> Any:
            _loads.pipelines.append(self)
            try:
                return method(self, *args, **options)
            finally:
                _loads.pipelines.pop()

        return load_textual_inversion

    hooks.replace(module, "load_textual_inversion_state_dicts", load_states)
    hooks.wrap_method(module.TextualInversionLoaderMixin, "load_textual_inversion", make)
