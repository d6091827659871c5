"""Attention computed a few heads at a time. For old U-Nets on cards without fused attention kernels only.

It replaces PyTorch's fused attention, which needs less memory still, and it does nothing at all on transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal
from oomdoctor.techniques.effects import Attention, Effect
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


class AttentionSlicing(LinesTechnique):
    name = "attention_slicing"
    summary = "U-Nets only: compute attention a slice at a time; slower, and seldom better than the fused kernels."
    docs = "https://huggingface.co/docs/diffusers/api/pipelines/overview#diffusers.DiffusionPipeline.enable_attention_slicing"
    tags = ("attention",)
    phase = Phase.ATTENTION
    quality = Quality.EQUIVALENT
    conflicts = ("attention_backend",)
    words = ("auto", "max")
    explains = {
        "auto": "Half of the heads at a time.",
        "max": "One slice at a time: least memory, slowest.",
    }
    verbs = ("enable_attention_slicing",)
    reason = "Computes attention a slice at a time, so that its large matrix never exists as a whole."

    def options(self, context: Context) -> tuple[Application, ...]:
        # PyTorch 2's fused attention never builds the matrix that this would slice.
        return ()

    def resolve(self, application: Application, context: Context) -> Application:
        return application.model_copy(update={"components": application.components or ("auto",)})

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.denoisers and "unet" not in context.denoisers:
            return f"it does nothing on transformers such as {context.class_of(context.denoisers[0])}."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (Attention("sliced", slice_size=1 if application.components == ("max",) else None),)

    def lines(self, draft: Draft, application: Application) -> list[str]:
        size = draft.quote("max") if application.components == ("max",) else ""
        return [f"{draft.pipe}.enable_attention_slicing({size})"]

    def read(self, context: Context) -> Application | None:
        found = self.found(context.use)
        if not found:
            return None
        size = found[0].argument("0", found[0].argument("slice_size", "auto"))
        return Application(technique=self.name, components=("max" if size in ("max", 1) else "auto",))

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
pipe = pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
pipe = pipe.to("cuda")
pipe.enable_attention_slicing()
image = pipe("a cat").images[0]
""",
            "attention_slicing",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "attention_slicing",
            "does nothing on transformers",
        ),
    )
