"""The safety checker of the Cosmos pipelines, which is a package of its own with models of its own."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

from oomdoctor.loading import hooks, session

MODULES = tuple(
    f"diffusers.pipelines.cosmos.{name}"
    for name in (
        "pipeline_cosmos_text2world", "pipeline_cosmos_video2world", "pipeline_cosmos2_text2image",
        "pipeline_cosmos2_video2world", "pipeline_cosmos2_5_predict", "pipeline_cosmos2_5_transfer",
        "pipeline_cosmos3_omni",
    )
)  # fmt: skip


class CosmosSafetyChecker:
    """Lets everything pass; used only where the ``cosmos_guardrail`` package is missing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        session.current().note(
            "the cosmos_guardrail package is missing: install it for a real run. Its models (a Llama Guard among them) "
            "are not counted here."
        )

    def to(self, *args: Any, **options: Any) -> CosmosSafetyChecker:
        return self

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video


def patch(module: ModuleType) -> None:
    """After a Cosmos pipeline module was imported."""
    if importlib.util.find_spec("cosmos_guardrail") is None and hasattr(module, "CosmosSafetyChecker"):
        hooks.replace(module, "CosmosSafetyChecker", CosmosSafetyChecker)
