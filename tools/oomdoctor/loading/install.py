"""Make the loaders of diffusers, transformers and friends work without weights, in this process, from now on."""

from __future__ import annotations

from typing import Any

from oomdoctor.loading import checkpoints, guardrail, hooks, hub, paths, processors, session, text


def install(bundle: dict[str, Any], notes: list[str]) -> None:
    """Patch what is imported, and whatever of it is imported later; sentences on what was assumed go to ``notes``.

    ``bundle``: ``catalogue`` (folder of the catalogue's files), ``configs`` (folders), ``like`` (model -> model),
    ``hf_cache`` (folder or None), ``scratch`` (a folder to write to). Call it after the virtual GPU is up.
    """
    session.start(bundle, notes)
    checkpoints.patch_torch_load()
    hooks.after_import("safetensors", checkpoints.patch_safetensors)
    hooks.after_import("safetensors.torch", checkpoints.patch_safetensors_torch)
    hooks.after_import("huggingface_hub", hub.patch)
    for name, patch in paths.PATCHES.items():
        hooks.after_import(name, patch)
    hooks.after_import("transformers.tokenization_utils_base", text.patch_tokenizers)
    hooks.after_import("transformers.models.auto.tokenization_auto", text.patch_auto_tokenizer)
    hooks.after_import("transformers.processing_utils", processors.patch)
    hooks.after_import("transformers.image_processing_base", processors.patch_image_processors)
    hooks.after_import("diffusers.pipelines.pipeline_loading_utils", processors.patch_pipeline_loading)
    for name in guardrail.MODULES:
        hooks.after_import(name, guardrail.patch)
