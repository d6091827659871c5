"""APIs that the installed versions know, on hardware that can do it."""

from __future__ import annotations

from collections.abc import Iterator

from oomdoctor.hardware import card

from oomdoctor_evals.values import Observed, Scenario

BACKENDS: dict[str, tuple[int, int]] = {
    "flash": (8, 0), "flash_hub": (8, 0), "_flash_3": (9, 0), "_flash_3_hub": (9, 0), "sage": (8, 0), "sage_hub": (8, 0),
    "flex": (7, 0), "xformers": (7, 0), "_native_flash": (8, 0), "flash_4_hub": (10, 0),
}  # fmt: skip
"""Attention backend -> least compute capability. Source: the kernels' own requirements, diffusers attention_dispatch."""
COMPUTE_FP8 = (8, 9)


def broken(scenario: Scenario, reference: Observed, answer: Observed) -> Iterator[str]:
    """Arguments that are ignored, new deprecations, kernels that the card lacks."""
    known = set(reference.workload.get("warnings", []))
    for warning in answer.workload.get("warnings", []):
        if warning not in known and _counts(warning):
            yield f"warns: {warning[:160]}"
    capability = card(scenario.machine.gpu).compute_capability or (8, 0)
    for call in answer.workload.get("calls", []):
        for name, part in (call.get("components") or {}).items():
            needed = BACKENDS.get(part.get("backend") or "")
            if needed and capability < needed:
                yield f"{name}: attention backend {part['backend']} needs compute capability {needed[0]}.{needed[1]}"
            if any("Float8Dynamic" in kind for kind in part.get("kinds", [])) and capability < COMPUTE_FP8:
                yield f"{name}: computing in fp8 needs compute capability 8.9"


def _counts(warning: str) -> bool:
    """Ignored arguments always; deprecations when they are diffusers' own."""
    return "ignored" in warning or "not expected by" in warning or "has no effect" in warning or (
        "deprecated" in warning and "torch_dtype" not in warning and "local_dir" not in warning
    )  # fmt: skip
