"""The scheduler's noise levels stay off the card: a handful of numbers that the CPU reads at every step.

diffusers' schedulers keep them there by themselves. A script that moves them to the card makes the CPU wait for the
card at each step; it saves no memory worth naming.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.effects import Effect, SpeedFactor
from oomdoctor.values import Application, Measurement, Placement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_REASON = "Leaves the scheduler's few numbers in RAM, where they are read: no waiting for the card at each step."


class SigmasOnCpu(Technique):
    name = "sigmas_on_cpu"
    summary = "Keep the scheduler's noise levels off the card: no waiting at each step; saves time only."
    docs = "https://huggingface.co/docs/diffusers/optimization/fp16#gpu-sync"
    tags = ("speed",)
    phase = Phase.ADAPTERS
    quality = Quality.IDENTICAL
    settles = False

    def options(self, context: Context) -> tuple[Application, ...]:
        return ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.use.kind == "model":
            return "the script uses a bare model, which has no scheduler."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (SpeedFactor(1.0, low=0.95, high=1.0, source="diffusers documentation names no figure"),)

    def write(self, draft: Draft, application: Application) -> None:
        if not (moves := _moves(draft.context)):
            draft.warn(
                "The script does not move the scheduler's noise levels to the card; diffusers keeps them in RAM."
            )
        for move in moves:
            statement = draft.tree.statement(move.span)
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]).endswith(".sigmas"):
                draft.remove_statement(statement, _REASON)
            else:
                draft.by_hand(f"Line {move.span.line}: do not move the scheduler's sigmas to the card.")

    def read(self, context: Context) -> Application | None:
        return None

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
pipe.scheduler.sigmas = pipe.scheduler.sigmas.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "sigmas_on_cpu",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxTransformer2DModel

model = FluxTransformer2DModel.from_pretrained("black-forest-labs/FLUX.1-dev", subfolder="transformer")
model.to("cuda")
""",
            "sigmas_on_cpu",
            "bare model",
        ),
    )


def _moves(context: Context) -> list[Placement]:
    return [p for p in context.use.placements if p.target.endswith("scheduler.sigmas")]
