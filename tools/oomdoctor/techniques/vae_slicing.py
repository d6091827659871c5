"""The VAE decodes one picture of the batch at a time: helps with more than one picture per call, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Use
from oomdoctor.techniques.effects import Effect, SliceVae
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


class VaeSlicing(LinesTechnique):
    name = "vae_slicing"
    summary = "Decode the pictures of a batch one after the other; no effect on single pictures."
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#vae-slicing"
    tags = ("vae_memory", "batch")
    phase = Phase.VAE
    quality = Quality.EQUIVALENT
    group = "offloading / casting"
    verbs = ("enable_slicing", "enable_vae_slicing")
    reason = "Decodes the pictures of a batch one at a time instead of all at once."

    def options(self, context: Context) -> tuple[Application, ...]:
        plain = Application(technique=self.name)
        return (plain,) if (context.images or 1) > 1 and self.applies_to(context, plain) is None else ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.use.kind == "model":
            return "the script uses a bare model and no pipeline; call the method of the VAE itself."
        if context.components and "vae" not in context.components and context.facts is not None:
            return f"{context.pipeline_class} has no vae."
        if context.vae is not None and not context.vae.slicing:
            return f"{context.class_of('vae')} cannot slice."
        if context.images == 1:
            return "there is one picture per call, so there is no batch to slice."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (SliceVae(),)

    def lines(self, draft: Draft, application: Application) -> list[str]:
        return [f"{draft.component('vae')}.enable_slicing()"]

    def idle(self, context: Context, present: Application) -> bool:
        return context.images == 1

    def owns(self, use: Use) -> bool:
        return (use.verb, use.owner) in (("enable_slicing", "vae"), ("enable_vae_slicing", ""))

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
images = pipe("a cat", num_images_per_prompt=8).images
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
pipe.vae.enable_slicing()
images = pipe("a cat", num_images_per_prompt=8).images
""",
            "vae_slicing",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
image = pipe("a cat").images[0]
""",
            "vae_slicing",
            "one picture",
        ),
    )
