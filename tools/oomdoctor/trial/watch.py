"""Tell the tracker what diffusers does: which module is which component, when a load begins. Child side."""

from __future__ import annotations

import functools
import sys
from typing import Any

from oomdoctor.loading import hooks
from oomdoctor.vgpu import world as _world
from oomdoctor.vgpu.tracker import LOAD


def install() -> None:
    """Patch diffusers as soon as it is imported."""
    hooks.after_import("diffusers.pipelines.pipeline_utils", _watch_pipelines)
    hooks.after_import("diffusers.models.modeling_utils", _watch_models)
    hooks.after_import("transformers.modeling_utils", _watch_transformers)


def _loading(load: Any) -> Any:
    """``from_pretrained`` as a stretch of the load stage."""

    @functools.wraps(load)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        world = _world.current()
        world.tracker.enter_stage(LOAD, "", world.gpu)
        return load(*args, **kwargs)

    return wrapped


def _loading_model(load: Any) -> Any:
    """The same for one model, which may be used without a pipeline: it is named when that happens."""
    staged = _loading(load)

    @functools.wraps(load)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = staged(*args, **kwargs)
        model = result[0] if isinstance(result, tuple) else result
        if hasattr(model, "named_modules"):
            _world.current().tracker.came(model)
        return result

    return wrapped


def _wrap_classmethod(cls: Any, name: str, wrap: Any) -> None:
    found = cls.__dict__.get(name)
    if isinstance(found, classmethod):
        setattr(cls, name, classmethod(wrap(found.__func__)))


def _watch_pipelines(module: Any) -> None:
    pipeline = module.DiffusionPipeline
    _wrap_classmethod(pipeline, "from_pretrained", _loading)
    register = pipeline.register_modules

    @functools.wraps(register)
    def register_modules(self: Any, **components: Any) -> Any:
        result = register(self, **components)
        if _inside_another(self):
            return result
        for name, component in components.items():
            if hasattr(component, "named_modules"):
                _world.current().tracker.name(name, component)
        return result

    pipeline.register_modules = register_modules


def _inside_another(pipeline: Any) -> bool:
    """It is made in the ``__init__`` of a combined pipeline, whose names for the components are the script's."""
    frame = sys._getframe(1)
    while (above := frame.f_back) is not None:
        frame = above
        owner = frame.f_locals.get("self") if frame.f_code.co_name == "__init__" else None
        if owner is not None and owner is not pipeline and hasattr(type(owner), "register_modules"):
            return True
    return False


def _watch_models(module: Any) -> None:
    _wrap_classmethod(module.ModelMixin, "from_pretrained", _loading_model)


def _watch_transformers(module: Any) -> None:
    _wrap_classmethod(module.PreTrainedModel, "from_pretrained", _loading_model)
