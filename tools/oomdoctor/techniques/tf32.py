"""float32 matrix products in TF32: much faster on Ampere and newer, for what is still computed in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.effects import Effect, SpeedFactor
from oomdoctor.values import Application, Measurement, Optimisation, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_SWITCH = "torch.backends.cuda.matmul.allow_tf32"


class Tf32(Technique):
    name = "tf32"
    summary = "Let float32 matrix products run as TF32: faster on Ampere and newer; no memory is saved."
    docs = "https://huggingface.co/docs/diffusers/optimization/fp16#model-data-type"
    tags = ("speed",)
    phase = Phase.ENVIRONMENT
    quality = Quality.SLIGHT
    settles = False

    def options(self, context: Context) -> tuple[Application, ...]:
        return ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if str(context.use.dtype.value).removeprefix("torch.") in ("float16", "bfloat16"):
            return "the pipeline computes in 16 bits, where TF32 changes nothing."
        card = context.target.card if context.target else None
        if card is not None and card.compute_capability is not None and card.compute_capability < (8, 0):
            return f"{card.label} has no TF32 units."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (SpeedFactor(0.6, low=0.4, high=1.0, source="rates of the makers: TF32 is up to eight times float32"),)

    def write(self, draft: Draft, application: Application) -> None:
        draft.name("torch.backends")
        switch = _SWITCH.replace("torch", draft.name("torch.backends").removesuffix(".backends"), 1)
        draft.before_load([f"{switch} = True"], "Lets float32 matrix products use the faster TF32 units.")

    def _settings(self, context: Context) -> tuple[Optimisation, ...]:
        return tuple(s for s in context.script.settings if s.method == _SWITCH and s.arguments["value"].value is True)

    def read(self, context: Context) -> Application | None:
        return Application(technique=self.name) if self._settings(context) else None

    def remove(self, draft: Draft) -> None:
        for found in self._settings(draft.context):
            draft.remove_optimisation(found, "Takes out tf32.")

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float32)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

torch.backends.cuda.matmul.allow_tf32 = True
pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float32)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "tf32",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "tf32",
            "16 bits",
        ),
    )
