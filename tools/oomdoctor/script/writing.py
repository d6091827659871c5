"""Values back to Python, for the generated call run: classes of known libraries, ids and literals, nothing else."""

from __future__ import annotations

import keyword
import math
import re
from typing import Any

from oomdoctor.script import libraries

PROMPT = "a photo of an astronaut riding a horse on the moon"
"""Stands in for a prompt that the text does not tell."""
_IMAGES = re.compile(
    r"(\w+_)?(image|images|mask|video|frames|img|picture|ip_adapter_image|mask_video|reference_images)(_\d+)?\Z"
)
_VIDEOS = re.compile(r"(\w+_)?(video|frames|mask_video)(_\d+)?\Z")
_TEXT_DTYPES = frozenset({"weights_dtype", "activations_dtype"})
_CONFIGS = re.compile(r"[A-Z]\w*(Config|Mapping)\Z")
_TENSORS = frozenset({"randn", "rand", "zeros", "ones", "full"})
_LOADERS = frozenset({"load_image", "load_video", "open", "fromarray", "convert", "resize", "new", "crop", "thumbnail"})
_PICTURE = 1024


def is_name(text: str) -> bool:
    """Whether it can stand as a name (or dotted names) in generated code; private names cannot."""
    parts = text.split(".")
    return all(p.isidentifier() and not keyword.iskeyword(p) and not p.startswith("_") for p in parts)


def is_image(name: str) -> bool:
    return bool(_IMAGES.match(name))


def comment(text: str) -> str:
    """One line of comment, whatever the text holds."""
    return "# " + " ".join(text.split())[:200]


class Writer:
    """Turns values into expressions and collects the imports that they need."""

    def __init__(self) -> None:
        self.imports: dict[str, set[str]] = {}
        self.pipe: str | None = None
        """Name of the pipeline that is being written: what caches ask for the step it is at."""

    def use(self, module: str, name: str) -> str:
        """The name, imported from the module."""
        self.imports.setdefault(module, set()).add(name)
        return name

    def import_lines(self) -> list[str]:
        """``import torch`` first, then the rest in the order of the alphabet."""
        lines = [f"from {m} import {', '.join(sorted(names))}" for m, names in sorted(self.imports.items())]
        return ["import torch", *lines]

    def expression(self, value: Any, name: str = "") -> str | None:
        """Python for a value given to the argument ``name``; None when it is not of an allowed kind."""
        if isinstance(value, str):
            return self._text(value, name)
        if value is None or isinstance(value, bool | int):
            return repr(value)
        if isinstance(value, float):
            return repr(value) if math.isfinite(value) else None
        if isinstance(value, list):
            items = [self.expression(item, name) if item is not None else self.stand_in(name) for item in value]
            return None if None in items else f"[{', '.join(i for i in items if i)}]"
        if isinstance(value, dict) and set(value) == {"class", "module", "positional", "arguments"}:
            return self._made(value, name)
        if isinstance(value, dict):
            entries = {str(key): self.expression(item, _inner(name, str(key))) for key, item in value.items()}
            return (
                None
                if None in entries.values()
                else "{" + ", ".join(f"{_key(k, name)}: {v}" for k, v in entries.items()) + "}"
            )
        return None

    def _text(self, value: str, name: str) -> str:
        bare = value.removeprefix("torch.")
        if "dtype" in name and name not in _TEXT_DTYPES and bare in libraries.DTYPES:
            return f"torch.{bare}"
        if name == "memory_format" and value in (
            "torch.channels_last",
            "torch.contiguous_format",
            "torch.channels_last_3d",
        ):
            return value
        return repr(value)

    def _made(self, made: dict[str, Any], name: str) -> str | None:
        kind, module = str(made["class"]), str(made["module"])
        if not (is_name(kind) and (module == "" or is_name(module))):
            return None
        if kind in _LOADERS and is_image(name):
            return self.picture(made, name)
        root = libraries.root(module) or "diffusers"
        if module == "torch" and kind == "Generator":
            return self._generator(made)
        if module == "torch" and kind in _TENSORS:
            return self._call(f"torch.{kind}", made)
        ours = root in ("diffusers", "transformers") and _CONFIGS.match(kind)
        if not (ours or (root == "torchao" and module.startswith("torchao.quantization"))):
            return None
        # Classes are exported at the top of diffusers and transformers, whichever file they come from.
        return self._call(self.use(root if ours else "torchao.quantization", kind), made)

    def _call(self, function: str, made: dict[str, Any]) -> str | None:
        parts = [self.expression(v) for v in made["positional"]]
        for key, value in made["arguments"].items():
            asks = key == "current_timestep_callback" and value is None and self.pipe is not None
            written = f"lambda: {self.pipe}.current_timestep" if asks else self.expression(value, key)
            parts.append(f"{key}={written}" if written is not None and is_name(key) else None)
        return None if None in parts else f"{function}({', '.join(p for p in parts if p)})"

    def _generator(self, made: dict[str, Any]) -> str:
        device = made["arguments"].get("device", next(iter(made["positional"]), "cpu"))
        seed = made["arguments"].get("seed", 0)
        device = device if isinstance(device, str) else "cpu"
        return f"torch.Generator({device!r}).manual_seed({seed if isinstance(seed, int) else 0})"

    def picture(self, made: dict[str, Any] | None = None, name: str = "image") -> str:
        """A grey picture (or, for a video, 16 of them) in the size that the script resizes to, as far as it tells."""
        width, height = _PICTURE, _PICTURE
        size = next(iter(made["positional"]), None) if made is not None and made["class"] == "resize" else None
        if isinstance(size, list) and len(size) == 2 and all(isinstance(s, int) and 0 < s <= 16384 for s in size):
            width, height = size
        new = f'{self.use("PIL", "Image")}.new("RGB", ({width}, {height}), "grey")'
        return f"[{new}] * 16" if _VIDEOS.match(name) else new

    def stand_in(self, name: str) -> str | None:
        """What is given where the text does not tell; None where leaving it out is the honest choice."""
        if name in ("prompt", "text", "prompts", "prompt_2", "prompt_3", "negative_prompt"):
            return repr(PROMPT)
        if is_image(name):
            return self.picture(None, name)
        if name == "generator":
            return "torch.Generator('cpu').manual_seed(0)"
        return None


def _key(key: str, name: str) -> str:
    """``max_memory`` counts cards by number; JSON knows only text as keys."""
    return key if name == "max_memory" and key.isdecimal() else repr(key)


def _inner(name: str, key: str) -> str:
    """Entries of ``dtype={"transformer": ...}`` are dtypes, too."""
    return name if "dtype" in name else key
