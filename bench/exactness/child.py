"""Run in processes of their own: tiny random models, saved; loaded with their weights; loaded on the virtual card.

``real CONFIGS FOLDER FORMS``: write the models into the folder, load each really, in each form, and print what it
weighs. ``virtual FOLDER FORMS SCRATCH``: load each on the virtual card, and print the modules that a measurement sees.
``FORMS`` are names of :mod:`forms` with commas between.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
warnings.filterwarnings("ignore")
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).parent))

import torch


def quiet() -> None:
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()  # type: ignore[attr-defined]
        library.disable_progress_bar()  # type: ignore[attr-defined]


def find_class(library: str, name: str) -> Any:
    """The class of a component, where ``library`` is what ``model_index.json`` calls it."""
    if library in ("diffusers", "transformers"):
        return getattr(importlib.import_module(library), name)
    for place in (f"diffusers.pipelines.{library}", f"diffusers.pipelines.deprecated.{library}"):
        try:
            return getattr(importlib.import_module(place), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise LookupError(f"{library}.{name}")


def save(configs: str, root: Path) -> None:
    """Write every model of ``configs`` below ``root / family / component``; the weights are random and float32."""
    import forms
    import gguf_files
    import transformers

    torch.manual_seed(0)
    for family, parts in json.loads(Path(configs).read_text()).items():
        for name, (library, class_name, config) in parts.items():
            cls = find_class(library, class_name)
            config = copy.deepcopy(config)
            if issubclass(cls, transformers.PreTrainedModel):
                model = cls(cls.config_class.from_dict(config))
            else:
                model = cls.from_config(config)
            folder = root / family.replace("/", "--") / name.strip("./").replace("/", "--")
            model.save_pretrained(folder)
            (folder / "class.json").write_text(json.dumps([library, class_name]))
            if forms.loads_single_files(cls):
                gguf_files.write(folder / "model.gguf", model.state_dict())


def models(root: Path) -> list[tuple[str, str, Path, Any]]:
    """(family, component, folder, class) of everything below ``root``."""
    found = []
    for file in sorted(root.glob("*/*/class.json")) + sorted(root.glob("*/class.json")):
        folder = file.parent
        family = folder.parent if folder.parent != root else folder
        found.append((family.name, folder.name, folder, find_class(*json.loads(file.read_text()))))
    return found


def each(root: Path, names: list[str], look: Any) -> dict[str, Any]:
    """``look(component, load)`` for every model in every form that it has; errors by their words.

    Two families with an equal component share what was found for it.
    """
    import forms

    results: dict[str, Any] = {}
    known: dict[str, str] = {}
    for family, component, folder, cls in models(root):
        same = known.setdefault(cls.__name__ + (folder / "config.json").read_text(), f"{family}/{component}")
        for name in names:
            if same != f"{family}/{component}" and f"{same}/{name}" in results:
                results[f"{family}/{component}/{name}"] = results[f"{same}/{name}"]
                continue
            form = forms.FORMS[name]
            if not form.fits(cls):
                continue
            key = f"{family}/{component}/{name}"
            try:
                results[key] = look(component, lambda form=form, cls=cls, folder=folder: form.load(cls, folder))
            except Exception as error:
                text = traceback.format_exc() if os.environ.get("EXACTNESS_DEBUG") else ""
                results[key] = {"error": f"{type(error).__name__}: {error}"[:300] + text}
    return results


def real(root: Path, names: list[str]) -> dict[str, Any]:
    """What every model weighs, loaded with its weights."""
    import forms
    import weighing

    forms.on_cpu()
    return each(root, names, lambda component, load: weighing.weigh(load))


def virtual(root: Path, names: list[str], scratch: str) -> dict[str, Any]:
    """The modules of every model as the tracker of a virtual run sees them."""
    from oomdoctor.loading.install import install
    from oomdoctor.vgpu import VirtualCard, renew, virtual_gpu

    card = VirtualCard("big", "Big", total_bytes=200 << 30, compute_capability=(9, 0))
    with virtual_gpu(card):
        install({"catalogue": "", "configs": [], "like": {}, "hf_cache": None, "scratch": scratch}, [])
        quiet()

        def look(component: str, load: Any) -> Any:
            world = renew(card)
            world.tracker.name(component, load())
            return [dataclasses.asdict(node) for node in world.tracker.nodes]

        return each(root, names, look)


def main(mode: str, *rest: str) -> None:
    result: Any = None
    if mode == "real":
        quiet()
        save(rest[0], Path(rest[1]))
        result = real(Path(rest[1]), rest[2].split(","))
    else:
        result = virtual(Path(rest[0]), rest[1].split(","), rest[2])
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
