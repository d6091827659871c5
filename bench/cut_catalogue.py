"""A copy of the catalogue whose models have few blocks: the same classes and operations at a fraction of the time."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from oomdoctor.models import catalogue

DEPTHS = ("num_layers", "num_single_layers", "num_visual_blocks", "num_double_layers")
"""Arguments of diffusers classes that count equal blocks."""


def cut(config: dict[str, Any], class_name: str, blocks: int) -> dict[str, Any]:
    """``config`` with at most ``blocks`` blocks of each kind; classes of other libraries than diffusers only T5."""
    import diffusers

    if class_name in ("T5EncoderModel", "UMT5EncoderModel"):
        return {**config, "num_layers": blocks}
    cls = getattr(diffusers, class_name, None)
    if cls is None or "Transformer" not in class_name and "ControlNet" not in class_name:
        return config
    known = inspect.signature(cls.__init__).parameters
    shorter = {}
    for name in DEPTHS:
        if name in known:
            now = config.get(name, known[name].default)
            if isinstance(now, int):
                shorter[name] = min(now, blocks)
    if "llama_layers" in config:  # HiDream: one hidden state of its text encoder per block
        shorter["llama_layers"] = config["llama_layers"][: sum(shorter.values())]
    return {**config, **shorter}


def write(folder: Path, blocks: int) -> Path:
    """Write the shortened catalogue into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, entry in catalogue().items():
        for part in entry["components"].values():
            if part and "params" in part:
                part["config"] = cut(part["config"], part["class"].rpartition(".")[2], blocks)
        (folder / (name.replace("/", "--") + ".json")).write_text(json.dumps(entry))
    return folder
