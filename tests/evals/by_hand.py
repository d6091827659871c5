"""A scenario made by hand, as a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

META: dict[str, Any] = {
    "family": "by_hand", "category": "load_time", "twin": None, "split": "dev",
    "provenance": {"kind": "synthetic"},
    "machine": {"gpu": "rtx-3060-12gb", "ram_mib": 65536, "versions": {"torch": "2.13.0", "bitsandbytes": None}},
    "preference": {"text": "Keep it as it is.", "rules": {"quality": "slight", "quantise": "forbid"}},
    "expected": {
        "verdict": "fixable",
        "truth": {"phase": "place", "component": "transformer", "resource": "vram", "root_cause": "load_time"},
        "best": {"answer": "offload", "seconds": 10.0, "peak_mib": 6000, "quality": "identical"},
    },
}  # fmt: skip
SCRIPT = 'import torch\nfrom diffusers import FluxPipeline\n\npipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")\npipe.to("cuda")\nimage = pipe("a cat", num_inference_steps=28, height=1024).images[0]\nimage.save("a.png")\n'


def write_scenario(folder: Path, **changes: Any) -> Path:
    """A folder that loads, unless ``changes`` spoil it."""
    files = {
        "scenario.json": json.dumps({**META, **changes}),
        "script.py": SCRIPT,
        "evidence/traceback.txt": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 72.00 MiB.\n",
        "pass/offload.py": SCRIPT.replace('pipe.to("cuda")', "pipe.enable_model_cpu_offload()"),
        "fail/resident.py": SCRIPT,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
