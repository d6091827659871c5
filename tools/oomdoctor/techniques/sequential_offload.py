"""Every layer travels to the card alone and is dropped again: the least memory of all, and by far the slowest.

Group offloading with ``leaf`` holds as little and fetches ahead, so it is nearly always the better choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal
from oomdoctor.techniques.effects import Effect, Place
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.techniques.model_offload import NO_PLACEMENT
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


class SequentialOffload(LinesTechnique):
    name = "sequential_offload"
    summary = "Bring one layer at a time to the card: the least memory, very slow; group_offload(leaf) is faster."
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#cpu-offloading"
    tags = ("offload",)
    phase = Phase.OFFLOAD
    quality = Quality.IDENTICAL
    group = "offloading / casting"
    conflicts = ("offload", "group_offload", "multi_gpu", "quantization", "layerwise_casting")
    verbs = ("enable_sequential_cpu_offload",)
    reason = "Brings each layer to the card only for the moment it runs: the least memory, but slow."

    def options(self, context: Context) -> tuple[Application, ...]:
        # Group offloading needs as little and is faster wherever it exists; this is for what it does not support.
        return () if not context.older("diffusers", "0.36") else super().options(context)

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.use.kind == "model":
            return "the script uses a bare model; use group_offload."
        if context.missing("accelerate"):
            return "it needs the package accelerate, which is not installed (pip install accelerate)."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (Place("*", "sequential", host="pageable", writes_back=False),)

    def lines(self, draft: Draft, application: Application) -> list[str]:
        return [f"{draft.pipe}.enable_sequential_cpu_offload()"]

    def tidy(self, draft: Draft, application: Application) -> None:
        draft.remove_placement(NO_PLACEMENT)

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("some/model", torch_dtype=torch.bfloat16)
pipe = pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("some/model", torch_dtype=torch.bfloat16)
pipe.enable_sequential_cpu_offload()
image = pipe("a cat").images[0]
""",
            "sequential_offload",
        ),
        Refusal(
            """\
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("some/model", torch_dtype=torch.bfloat16)
image = pipe("a cat").images[0]
""",
            "sequential_offload+fp8_casting(transformer)",
            "cannot be combined",
        ),
    )
