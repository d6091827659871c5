"""Virtual against real: every figure of a measurement's component beside what the really loaded model says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))

from oomdoctor.trial.measuring import components_of
from oomdoctor.values import Component, ModuleNode

FIGURES = {
    "loaded": "loaded_bytes", "params": "params", "leaf": "largest_leaf_bytes", "block": "largest_block_bytes",
    "unmatched": "unmatched_bytes", "fp8": "fp8_cast_bytes", "pinned": "pinned_bytes",
}  # fmt: skip
"""What is weighed -> the component's field."""
FORECAST = {"bnb-int8": "int8_bytes", "bnb-nf4": "nf4_bytes"}
"""A quantised form -> the field of the plain form, of the same type, that foretells it."""

PLAIN = ("float32", "float16", "bfloat16")


class Row(NamedTuple):
    """One comparison."""

    key: str
    """``family/component/form``."""
    figure: str
    real: int | str | None
    virtual: int | str | None

    @property
    def equal(self) -> bool:
        """Also when both loads end with the same error: what the library refuses, it refuses on the virtual card."""
        return self.real == self.virtual


def child(*arguments: str, timeout: float = 1800) -> Any:
    """The answer of :mod:`child`. Raises RuntimeError with its last words when there is none."""
    done = subprocess.run(
        [sys.executable, str(HERE / "child.py"), *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if "RESULT " not in done.stdout:
        raise RuntimeError(done.stderr[-4000:])
    return json.loads(done.stdout.rsplit("RESULT ", 1)[1])


def component(nodes: list[dict[str, Any]]) -> Component:
    """The measurement's component of what a virtual load left."""
    known = [ModuleNode.model_validate({k: v for k, v in n.items() if k in ModuleNode.model_fields}) for n in nodes]
    (found,) = components_of(tuple(known))
    return found


def compared(real: dict[str, Any], virtual: dict[str, Any]) -> Iterator[Row]:
    """A row per figure of every load, and one per foretold figure."""
    parts = {key: component(nodes) for key, nodes in virtual.items() if "error" not in nodes}
    for key, weighed in real.items():
        part = parts.get(key)
        if "error" in weighed or part is None:
            said = virtual.get(key, {"error": "not loaded"})
            yield Row(key, "load", weighed.get("error", "loads"), said["error"] if part is None else "loads")
            continue
        for name, value in weighed.items():
            if name in FIGURES:
                yield Row(key, name, value, getattr(part, FIGURES[name]))
        if "blocks" in weighed:
            yield Row(key, "blocks", weighed["blocks"], sum(block.total_bytes for block in part.blocks))
        family, _, form = key.rpartition("/")
        for kind, field in FORECAST.items():
            dtype = form.removeprefix(f"{kind}-")
            plain = parts.get(f"{family}/{dtype}")
            if dtype != form and plain is not None:
                yield Row(key, f"{dtype}: {field}", weighed["loaded"], getattr(plain, field))


def run(configs: dict[str, Any], forms: list[str], folder: Path) -> list[Row]:
    """Make the models of ``configs`` below ``folder``, load them both ways, one after the other, and compare.

    What foretells a quantised form is loaded virtually besides.
    """
    plain = [f.removeprefix(f"{kind}-") for f in forms for kind in FORECAST if f.startswith(f"{kind}-")]
    virtual = [*forms, *(name for name in dict.fromkeys(plain) if name not in forms and name in PLAIN)]
    (folder / "tiny.json").write_text(json.dumps(configs))
    root = str(folder / "models")
    real = child("real", str(folder / "tiny.json"), root, ",".join(forms))
    return list(compared(real, child("virtual", root, ",".join(virtual), str(folder / "scratch"))))
