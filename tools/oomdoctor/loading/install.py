"""Make the loaders of diffusers, transformers and friends work without weights, in this process, from now on."""

from __future__ import annotations

from typing import Any

from oomdoctor.loading import (
    adapters,
    attention,
    checkpoints,
    compiling,
    guardrail,
    hooks,
    hub,
    lora,
    packages,
    paths,
    pictures,
    positions,
    processors,
    session,
    single_file,
    text,
    vision_library,
)
from oomdoctor.loading.quantised import bnb, gguf, placing, quanto, torchao


def install(bundle: dict[str, Any], notes: list[str]) -> None:
    """Patch what is imported, and whatever of it is imported later; sentences on what was assumed go to ``notes``.

    ``bundle``: ``catalogue`` (folder of the catalogue's files), ``configs`` (folders), ``like`` (model -> model),
    ``hf_cache`` (folder or None), ``scratch`` (a folder to write to),
    ``image_size`` ([height, width] of pictures that cannot be read). Call it after the virtual GPU is up.
    """
    session.start(bundle, notes)
    checkpoints.patch_torch_load()
    compiling.patch_torch()
    for name, patch in {**PATCHES, **paths.PATCHES, **torchao.PATCHES, **vision_library.PATCHES}.items():
        hooks.after_import(name, patch)
    for name, fill in bnb.MODULES.items():
        hooks.provide(name, fill)
    quanto.provide(hooks.provide)
    packages.pretend({"bitsandbytes": bnb.VERSION, "optimum": quanto.VERSION, "optimum-quanto": quanto.VERSION})
    attention.install()
    for name in placing.MODULES:
        hooks.after_import(name, placing.patch)
    for name in guardrail.MODULES:
        hooks.after_import(name, guardrail.patch)


PATCHES = {
    "safetensors": checkpoints.patch_safetensors,
    "safetensors.torch": checkpoints.patch_safetensors_torch,
    "huggingface_hub": hub.patch,
    "requests": pictures.patch_requests,
    "PIL.Image": pictures.patch_pil,
    "transformers.tokenization_utils_base": text.patch_tokenizers,
    "transformers.models.auto.tokenization_auto": text.patch_auto_tokenizer,
    "transformers.processing_utils": processors.patch,
    "transformers.image_processing_base": processors.patch_image_processors,
    "diffusers.utils.loading_utils": pictures.patch_diffusers,
    "diffusers.models.embeddings": positions.patch,
    "diffusers.models.model_loading_utils": gguf.patch_reader,
    "diffusers.quantizers.gguf.utils": gguf.patch_parameter,
    "diffusers.pipelines.pipeline_loading_utils": processors.patch_pipeline_loading,
    "diffusers.loaders.lora_base": lora.patch_base,
    "diffusers.loaders.lora_pipeline": lora.patch_pipelines,
    "diffusers.loaders.textual_inversion": lora.patch_textual_inversion,
    "diffusers.loaders.ip_adapter": adapters.patch,
    "diffusers.loaders.single_file": single_file.patch_pipelines,
    "diffusers.loaders.single_file_model": single_file.patch_models,
}
"""Module -> what to do after it is imported."""
