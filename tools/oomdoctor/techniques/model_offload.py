"""One component on the card at a time: the text encoders leave before the transformer comes, and so on.

The first thing to try when the pipeline as a whole does not fit but its largest component does: weights travel once
per stage, so it costs little time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique, Use
from oomdoctor.techniques.effects import Effect, Place
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_STAYS = ("safety_checker",)
NO_PLACEMENT = 'No `.to("cuda")`: it would load everything onto the card at once; offloading moves the parts itself.'


class ModelOffload(Technique):
    name = "model_offload"
    summary = "Keep only the running component on the card; the others wait in RAM. A few seconds per call."
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#model-offloading"
    tags = ("offload",)
    phase = Phase.OFFLOAD
    quality = Quality.IDENTICAL
    group = "offloading / casting"
    conflicts = ("offload", "group_offload", "multi_gpu")

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.use.kind == "model":
            return "the script uses a bare model; only a pipeline can take its components in turns."
        if context.missing("accelerate"):
            return "it needs the package accelerate, which is not installed (pip install accelerate)."
        facts = context.facts
        if facts is not None and not facts.offload_sequence:
            return f"{context.pipeline_class} does not say in which order its components run."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        # The safety checker is on no pipeline's chain: diffusers puts it on the card at once and leaves it there.
        here = [c.name for c in measurement.components if c.name in _STAYS] if measurement else []
        return (Place("*", "component"), *(Place(name, "resident") for name in here))

    def write(self, draft: Draft, application: Application) -> None:
        self.tidy(draft, application)
        draft.after_load(
            [f"{draft.pipe}.enable_model_cpu_offload()"],
            self.phase,
            "Brings each component to the card only while it runs and keeps the others in RAM.",
        )

    def tidy(self, draft: Draft, application: Application) -> None:
        draft.remove_placement(NO_PLACEMENT)

    def owns(self, use: Use) -> bool:
        return use.verb == "enable_model_cpu_offload"

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")

image = pipe("a cat", height=1024, width=1024).images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()

image = pipe("a cat", height=1024, width=1024).images[0]
""",
            "model_offload",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline

def load():
    return FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")

image = load()("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

def load():
    pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
    pipe.enable_model_cpu_offload()
    return pipe

image = load()("a cat").images[0]
""",
            "model_offload",
            why="a loader function keeps its shape",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxTransformer2DModel

model = FluxTransformer2DModel.from_pretrained("black-forest-labs/FLUX.1-dev", subfolder="transformer")
model.to("cuda")
""",
            "model_offload",
            "bare model",
        ),
    )
