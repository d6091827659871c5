"""Fewer steps, with a scheduler or a LoRA that is made for few: advice only, because it makes another picture.

Steps cost time, not memory: the peak of a call is the same with 4 steps as with 50. So nothing is ever written into a
script; the advice names the lines for a person who wants them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.effects import Effect
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_FEW = 12


class FewerSteps(Technique):
    name = "fewer_steps"
    summary = "Advice: a faster solver or a distilled LoRA needs fewer steps; saves time, not memory; another picture."
    docs = "https://huggingface.co/docs/diffusers/using-diffusers/schedulers"
    tags = ("speed", "smaller_job")
    phase = Phase.CALL
    quality = Quality.NOTICEABLE
    settles = False

    def options(self, context: Context) -> tuple[Application, ...]:
        # It changes the work, so it is no way to make the work fit.
        return ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if not context.denoisers:
            return "the script does not tell which model runs the steps."
        steps = context.argument("num_inference_steps")
        if isinstance(steps, int) and steps <= _FEW:
            return f"the call takes {steps} steps only."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return ()

    def write(self, draft: Draft, application: Application) -> None:
        pipe, steps = draft.pipe, draft.context.argument("num_inference_steps")
        now = f"instead of {steps}" if isinstance(steps, int) else "instead of the default number"
        if "unet" in draft.context.denoisers:
            solver = "DPMSolverMultistepScheduler"
            line = f"{pipe}.scheduler = {solver}.from_config({pipe}.scheduler.config)"
            draft.by_hand(
                f"For a faster run, if another picture is as good: `{line}` (import {solver} from diffusers) and "
                f"num_inference_steps=20 {now}."
            )
            return
        draft.by_hand(
            f"For a faster run, if another picture is as good: load a LoRA that is distilled for few steps "
            f"(`{pipe}.load_lora_weights(...)`) and pass the number of steps that its page names {now}."
        )

    def read(self, context: Context) -> Application | None:
        return None

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat", num_inference_steps=50).images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat", num_inference_steps=50).images[0]
""",
            "fewer_steps",
            why="advice: nothing is written",
            by_hand="DPMSolverMultistepScheduler",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat", num_inference_steps=4).images[0]
""",
            "fewer_steps",
            "4 steps only",
        ),
    )
