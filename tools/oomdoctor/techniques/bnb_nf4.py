"""bitsandbytes 4-bit (NormalFloat): a quarter of the memory of the linear layers, on NVIDIA cards."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Refusal
from oomdoctor.techniques.quantisation import Quantiser
from oomdoctor.values import Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


class BnbNf4(Quantiser):
    name = "bnb_nf4"
    summary = "Load models with 4 bits per weight (bitsandbytes NF4): a quarter of the memory, visibly not the same."
    docs = "https://huggingface.co/docs/diffusers/quantization/bitsandbytes"
    quality = Quality.NOTICEABLE
    packages = ("bitsandbytes",)
    package, minimum, format = "bitsandbytes", "0.43.3", "nf4"

    def pipeline_config(self, draft: Draft, names: tuple[str, ...]) -> str:
        unit, quote = draft.text.indent_unit, draft.quote
        return "\n".join(
            [
                f"{draft.name('diffusers.quantizers.PipelineQuantizationConfig')}(",
                f"{unit}quant_backend={quote('bitsandbytes_4bit')},",
                f"{unit}quant_kwargs={{",
                f"{unit}{unit}{quote('load_in_4bit')}: True,",
                f"{unit}{unit}{quote('bnb_4bit_quant_type')}: {quote('nf4')},",
                f"{unit}{unit}{quote('bnb_4bit_compute_dtype')}: {draft.compute_dtype(names[0])},",
                f"{unit}}},",
                f"{unit}components_to_quantize=[{', '.join(quote(n) for n in names)}],",
                ")",
            ]
        )

    def component_config(self, draft: Draft, name: str) -> str:
        library = "transformers" if draft.context.is_transformers(name) else "diffusers"
        alias = "TransformersBitsAndBytesConfig" if library == "transformers" else None
        function = draft.name(f"{library}.BitsAndBytesConfig", alias)
        compute = draft.compute_dtype(name)
        unit = draft.text.indent_unit
        rows = ("load_in_4bit=True", f"bnb_4bit_quant_type={draft.quote('nf4')}", f"bnb_4bit_compute_dtype={compute}")
        return "\n".join([f"{function}(", *(f"{unit}{row}," for row in rows), ")"])

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline
from diffusers.quantizers import PipelineQuantizationConfig

quantization_config = PipelineQuantizationConfig(
    quant_backend="bitsandbytes_4bit",
    quant_kwargs={
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": torch.bfloat16,
    },
    components_to_quantize=["transformer", "text_encoder_2"],
)
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16, quantization_config=quantization_config)
pipe.enable_model_cpu_offload()
image = pipe("a cat").images[0]
""",
            "bnb_nf4(transformer, text_encoder_2)+model_offload",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

transformer = FluxTransformer2DModel.from_pretrained(
    "black-forest-labs/FLUX.1-dev",
    subfolder="transformer",
    torch_dtype=torch.bfloat16,
)
pipe = FluxPipeline.from_pretrained(
    "black-forest-labs/FLUX.1-dev", transformer=transformer, torch_dtype=torch.bfloat16
).to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import BitsAndBytesConfig, FluxPipeline, FluxTransformer2DModel

transformer = FluxTransformer2DModel.from_pretrained(
    "black-forest-labs/FLUX.1-dev",
    subfolder="transformer",
    torch_dtype=torch.bfloat16,
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    ),
)
pipe = FluxPipeline.from_pretrained(
    "black-forest-labs/FLUX.1-dev", transformer=transformer, torch_dtype=torch.bfloat16
).to("cuda")
image = pipe("a cat").images[0]
""",
            "bnb_nf4(transformer)",
            why="a model that is loaded by itself takes its own configuration",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_single_file("sdxl.safetensors", torch_dtype=torch.float16).to("cuda")
image = pipe("a cat").images[0]
""",
            "bnb_nf4(unet)",
            "from_pretrained",
        ),
    )
