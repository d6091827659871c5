"""Runs in the CUDA interpreter for ``kernels.py``; every card has a process of its own. Prints JSON, a line per card.

usage: kernels_inside.py attention|temporaries CARD:SHARED_MEMORY ...
"""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.nn.functional as F
from cases import OPERATIONS, attention

KERNELS = {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}


def tensor(text: str) -> torch.Tensor:
    """A tensor from its description; see ``cases``."""
    what, _, order = text.partition(":")
    dtype, *sizes = what.split()
    shape = [int(size) for size in sizes]
    if not order:
        return torch.empty(shape, dtype=getattr(torch, dtype), device="cuda")
    places = [int(place) for place in order.split()]
    laid = torch.empty([shape[place] for place in places], dtype=getattr(torch, dtype), device="cuda")
    return laid.permute([places.index(at) for at in range(len(places))])


def choices() -> dict[str, str]:
    out = {}
    for case in attention():
        query, key, value, dtype, mask, flags = case
        q, k, v = (tensor(f"{dtype} {shape}") for shape in (query, key, value))
        if "strided" in flags:
            q = q.transpose(-1, -2).contiguous().transpose(-1, -2)
        m = tensor(f"bool {mask}") if mask else None
        chosen = torch._fused_sdp_choice(q, k, v, m, 0.0, "causal" in flags, scale=None, enable_gqa="grouped" in flags)
        out[" | ".join(case)] = KERNELS[chosen]
    return out


def temporaries() -> list[dict[str, object]]:
    out = []
    small = torch.empty(16, 16, device="cuda")
    small @ small  # what cuBLAS keeps is taken with its first use
    for text, inputs in OPERATIONS:
        values = {name: tensor(shape) for name, shape in inputs.items()}
        out.append({"call": text, "inputs": inputs, **_watched(text, values)})
    return out


def _watched(text: str, values: dict[str, torch.Tensor]) -> dict[str, object]:
    torch.cuda.memory._record_memory_history(context=None)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    try:
        kept = eval(text, {"torch": torch, "F": F, **values})
    except RuntimeError as error:
        return {"error": str(error).splitlines()[0]}
    finally:
        trace = torch.cuda.memory._snapshot()["device_traces"][0]
        torch.cuda.memory._record_memory_history(None)
    steps = {"alloc": 1, "free_completed": -1}
    sizes = [steps[event["action"]] * event["size"] for event in trace if event["action"] in steps]
    found = {
        "peak": torch.cuda.max_memory_allocated() - before,
        "left": torch.cuda.memory_allocated() - before,
        "trace": sizes,
    }
    del kept
    return found


def main() -> None:
    for card in sys.argv[2:]:
        capability, _, shared = card.partition(":")
        os.environ["ORACLE_SM"], os.environ["ORACLE_OPTIN"] = capability, shared
        child = os.fork()
        if child == 0:
            found = choices() if sys.argv[1] == "attention" else temporaries()
            print(json.dumps({capability: found}), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
