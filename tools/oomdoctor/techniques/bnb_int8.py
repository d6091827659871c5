"""bitsandbytes 8-bit: half the memory of the linear layers, outliers kept in 16 bits, somewhat slower.

``load_in_8bit`` is spelled out: the backend's name alone silently gives 4 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Refusal
from oomdoctor.techniques.effects import Effect, SpeedFactor
from oomdoctor.techniques.facts import DENOISERS
from oomdoctor.techniques.quantisation import Quantiser
from oomdoctor.values import Application, Measurement, Quality, Stage

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


class BnbInt8(Quantiser):
    name = "bnb_int8"
    summary = "Load models with 8 bits per weight (bitsandbytes): half the memory, slight loss, slower steps."
    docs = "https://huggingface.co/docs/diffusers/quantization/bitsandbytes"
    quality = Quality.SLIGHT
    packages = ("bitsandbytes",)
    package, minimum, format = "bitsandbytes", "0.48", "int8"

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        # Its layers also quantise their inputs and take the outliers out, in every step: far more than unpacking costs.
        slower = SpeedFactor(
            1.7, Stage.DENOISE, 1.3, 2.0, source="Hugging Face blog, quantization backends: FLUX.1-dev, 12 s to 27 s"
        )
        stores = super().policy(application, measurement)
        return (*stores, slower) if any(n in DENOISERS for n in application.components) else stores

    def pipeline_config(self, draft: Draft, names: tuple[str, ...]) -> str:
        unit, quote = draft.text.indent_unit, draft.quote
        return "\n".join(
            [
                f"{draft.name('diffusers.quantizers.PipelineQuantizationConfig')}(",
                f"{unit}quant_backend={quote('bitsandbytes_8bit')},",
                f"{unit}quant_kwargs={{{quote('load_in_8bit')}: True}},",
                f"{unit}components_to_quantize=[{', '.join(quote(n) for n in names)}],",
                ")",
            ]
        )

    def component_config(self, draft: Draft, name: str) -> str:
        library = "transformers" if draft.context.is_transformers(name) else "diffusers"
        alias = "TransformersBitsAndBytesConfig" if library == "transformers" else None
        return f"{draft.name(f'{library}.BitsAndBytesConfig', alias)}(load_in_8bit=True)"

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained(
    "black-forest-labs/FLUX.1-dev",
    torch_dtype=torch.bfloat16,
).to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline
from diffusers.quantizers import PipelineQuantizationConfig

quantization_config = PipelineQuantizationConfig(
    quant_backend="bitsandbytes_8bit",
    quant_kwargs={"load_in_8bit": True},
    components_to_quantize=["transformer"],
)
pipe = FluxPipeline.from_pretrained(
    "black-forest-labs/FLUX.1-dev",
    torch_dtype=torch.bfloat16,
    quantization_config=quantization_config,
).to("cuda")
image = pipe("a cat").images[0]
""",
            "bnb_int8(transformer)",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "bnb_int8(transformer)",
            "bitsandbytes 0.48 or newer",
            versions=(("bitsandbytes", "0.45.0"),),
        ),
    )
