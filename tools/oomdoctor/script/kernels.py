"""``with`` blocks that choose an attention kernel: PyTorch's ``sdpa_kernel`` and diffusers' ``attention_backend``."""

from __future__ import annotations

import ast

from oomdoctor.script import libraries
from oomdoctor.script.domain import Abstract, Made
from oomdoctor.script.known import plain

KERNELS = {
    "FLASH_ATTENTION": "flash", "EFFICIENT_ATTENTION": "efficient", "CUDNN_ATTENTION": "cudnn", "MATH": "math",
}  # fmt: skip
"""Members of ``torch.nn.attention.SDPBackend`` -> what they are called here."""
_SWITCHES = {
    "enable_flash": "flash", "enable_mem_efficient": "efficient", "enable_cudnn": "cudnn", "enable_math": "math",
}  # fmt: skip
BACKEND = "backend:"
"""Before the name of a backend of diffusers."""


def allowed(value: Abstract, node: ast.expr) -> tuple[str, ...] | None:
    """The kernels that a context manager allows, in its order; None when it is none of these or cannot be told."""
    if not isinstance(value, Made) or not isinstance(node, ast.Call):
        return None
    name = libraries.last(value.qualified)
    if value.qualified not in libraries.ATTENTION_CONTEXTS:
        return None
    given = [*value.positional, *(v for k, v in value.keywords.items() if k in ("backends", "backend"))]
    if name == "sdp_kernel":
        switches = {k: plain(v)[0] for k, v in value.keywords.items()}
        return tuple(kernel for keyword, kernel in _SWITCHES.items() if switches.get(keyword, True))
    told = plain(given[0])[0] if given else None
    if name == "attention_backend":
        return (f"{BACKEND}{told}",) if isinstance(told, str) else None
    members = [libraries.last(str(m)) for m in (told if isinstance(told, list) else [told])]
    return tuple(KERNELS[m] for m in members) if all(m in KERNELS for m in members) else None
