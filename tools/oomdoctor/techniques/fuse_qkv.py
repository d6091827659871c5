"""Query, key and value projections as one larger matrix product: a little faster, a little more memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal
from oomdoctor.techniques.effects import Effect, SpeedFactor
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


class FuseQkv(LinesTechnique):
    name = "fuse_qkv"
    summary = "Fuse the attention projections into one product: slightly faster; saves no memory."
    docs = "https://huggingface.co/docs/diffusers/optimization/fp16#fused-projection-matrices"
    tags = ("speed", "attention")
    phase = Phase.QUANTIZE
    quality = Quality.EQUIVALENT
    conflicts = ("quantization",)  # packed weights cannot be joined
    settles = False
    verbs = ("fuse_qkv_projections",)
    reason = "Computes query, key and value in one product instead of three."

    def options(self, context: Context) -> tuple[Application, ...]:
        return ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        adapters = {adapter.kind for adapter in context.use.adapters}
        if "lora" in adapters:
            return "LoRA layers sit on the projections that would be fused."
        if "ip_adapter" in adapters:
            return "fusing puts attention of its own in place of the IP-Adapter's, which then has no effect."
        if not context.denoisers:
            return "the script does not tell which model runs the steps."
        if context.facts is not None and context.facts.fuse_qkv:
            return None
        for name in context.denoisers:
            facts = context.model(name)
            if facts is None or not facts.fuse_qkv:
                return f"{context.class_of(name) or name} does not offer it."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (SpeedFactor(1.0, low=0.95, high=1.0, source="diffusers documentation names no figure"),)

    def lines(self, draft: Draft, application: Application) -> list[str]:
        return [f"{draft.component(n)}.fuse_qkv_projections()" for n in draft.context.denoisers]

    examples: ClassVar = (
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "bnb_nf4(transformer)+fuse_qkv",
            "cannot be combined",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
pipe.transformer.fuse_qkv_projections()
image = pipe("a cat").images[0]
""",
            "fuse_qkv",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
pipe.load_lora_weights("some/lora")
image = pipe("a cat").images[0]
""",
            "fuse_qkv",
            "LoRA",
        ),
    )
