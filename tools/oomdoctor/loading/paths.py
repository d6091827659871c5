"""Model arguments that name a folder: one without weights gets markers, one of another machine is found by its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from oomdoctor.loading import hooks, hub, session
from oomdoctor.loading.repos import looks_like_path


def localise(model: Any) -> Any:
    """``model`` as a loader should see it: unchanged for a repository id, a file and a complete folder."""
    if not isinstance(model, (str, os.PathLike)):
        return model
    place = os.fspath(model)
    now = session.current()
    if os.path.isfile(place) or now.in_scratch(place):
        return model
    if os.path.isdir(place):
        return str(now.snapshot(place)) if now.known(place) else model
    if looks_like_path(place) and place.count("/") != 1 and ("/" in place or "\\" in place):
        return str(hub.folder_of(place))
    if place.startswith((".", "/", "~")):
        return str(hub.folder_of(place))
    return model


def _wrap(original: Callable[..., Any]) -> Callable[..., Any]:
    def from_pretrained(cls: Any, pretrained_model_name_or_path: Any = None, *args: Any, **options: Any) -> Any:
        return original(cls, localise(pretrained_model_name_or_path), *args, **options)

    return from_pretrained


def _patch(*names: str) -> Callable[[ModuleType], None]:
    def patch(module: ModuleType) -> None:
        for name in names:
            cls_name, method = name.split(".")
            cls = getattr(module, cls_name, None)
            if cls is not None and method in vars(cls):
                hooks.wrap_method(cls, method, _wrap)

    return patch


PATCHES = {
    "diffusers.pipelines.pipeline_utils": _patch("DiffusionPipeline.from_pretrained"),
    "diffusers.pipelines.auto_pipeline": _patch(
        "AutoPipelineForText2Image.from_pretrained",
        "AutoPipelineForImage2Image.from_pretrained",
        "AutoPipelineForInpainting.from_pretrained",
        "AutoPipelineForText2Video.from_pretrained",
        "AutoPipelineForImage2Video.from_pretrained",
    ),
    "diffusers.models.modeling_utils": _patch("ModelMixin.from_pretrained"),
    "diffusers.models.auto_model": _patch("AutoModel.from_pretrained"),
    "diffusers.configuration_utils": _patch("ConfigMixin.load_config"),
    "diffusers.schedulers.scheduling_utils": _patch("SchedulerMixin.from_pretrained"),
    "transformers.modeling_utils": _patch("PreTrainedModel.from_pretrained"),
    "transformers.configuration_utils": _patch("PretrainedConfig.get_config_dict", "PreTrainedConfig.get_config_dict"),
}
"""Module -> what to do after it is imported."""
