"""Memory format for convolutions: faster U-Nets and VAEs on cards with tensor cores. Costs nothing to try."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Use
from oomdoctor.techniques.effects import Effect, SpeedFactor
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


class ChannelsLast(LinesTechnique):
    name = "channels_last"
    summary = "Store U-Net convolutions channels last: often a little faster; no memory is saved."
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#torchchannels_last"
    tags = ("speed",)
    phase = Phase.ATTENTION
    quality = Quality.EQUIVALENT
    settles = False
    verbs = ("to",)
    reason = "Lays the convolutions out the way tensor cores read them."

    def options(self, context: Context) -> tuple[Application, ...]:
        return ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if "unet" not in context.denoisers:
            return "the model that runs the steps is no U-Net, so it has hardly any convolutions."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (SpeedFactor(1.0, low=0.9, high=1.05, source="diffusers documentation: may help or hurt, try it"),)

    def lines(self, draft: Draft, application: Application) -> list[str]:
        return [f"{draft.component('unet')}.to(memory_format={draft.name('torch.channels_last')})"]

    def owns(self, use: Use) -> bool:
        return use.verb == "to" and (use.text("memory_format") or "").endswith("channels_last")

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
pipe.unet.to(memory_format=torch.channels_last)
image = pipe("a cat").images[0]
""",
            "channels_last",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "channels_last",
            "no U-Net",
        ),
    )
