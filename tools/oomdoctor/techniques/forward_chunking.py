"""Feed-forward layers work on a part of the sequence at a time: for the few models that offer it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal
from oomdoctor.techniques.effects import ChunkFeedForward, Effect
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


class ForwardChunking(LinesTechnique):
    name = "forward_chunking"
    summary = "Run feed-forward layers over one portion of the sequence at a time; slower steps."
    docs = "https://huggingface.co/docs/diffusers/api/pipelines/text_to_video"
    tags = ("attention",)
    phase = Phase.ATTENTION
    quality = Quality.EQUIVALENT
    verbs = ("enable_forward_chunking",)
    reason = "Runs the feed-forward layers over one portion at a time instead of all at once."

    def options(self, context: Context) -> tuple[Application, ...]:
        plain = Application(technique=self.name)
        return (plain,) if self.applies_to(context, plain) is None else ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if not context.denoisers:
            return "the script does not tell which model runs the steps."
        name = context.denoisers[0]
        facts = context.model(name)
        if facts is None or not facts.forward_chunking:
            return f"{context.class_of(name) or name} does not offer it."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        # One element of the batch at a time; guidance alone makes two of them, frames many more.
        return (ChunkFeedForward(chunks=2),)

    def lines(self, draft: Draft, application: Application) -> list[str]:
        return [f"{draft.component(draft.context.denoisers[0])}.enable_forward_chunking()"]

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableVideoDiffusionPipeline

pipe = StableVideoDiffusionPipeline.from_pretrained("stabilityai/stable-video-diffusion-img2vid-xt", torch_dtype=torch.float16)
pipe.enable_model_cpu_offload()
frames = pipe(image).frames[0]
""",
            """\
import torch
from diffusers import StableVideoDiffusionPipeline

pipe = StableVideoDiffusionPipeline.from_pretrained("stabilityai/stable-video-diffusion-img2vid-xt", torch_dtype=torch.float16)
pipe.enable_model_cpu_offload()
pipe.unet.enable_forward_chunking()
frames = pipe(image).frames[0]
""",
            "model_offload+forward_chunking",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "forward_chunking",
            "does not offer it",
        ),
    )
