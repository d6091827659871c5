"""torchao weight-only quantisation: int8, fp8 and int4, compiled well and moved by every kind of offloading.

A pipeline-level ``quant_backend="torchao"`` raises: diffusers and transformers have different configuration classes
of that name. So each component gets its own library's class in ``quant_mapping``, around a torchao config object
(strings are refused).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Refusal
from oomdoctor.techniques.quantisation import Quantiser
from oomdoctor.values import Application, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_DOCS = "https://huggingface.co/docs/diffusers/quantization/torchao"


class _TorchAo(Quantiser):
    """The three differ in the config object alone."""

    docs = _DOCS
    packages = ("torchao",)
    package, minimum = "torchao", "0.15"
    on_card = False
    config: ClassVar[str]

    def component_config(self, draft: Draft, name: str) -> str:
        inner = f"{draft.name(f'torchao.quantization.{self.config}')}()"
        if draft.context.is_transformers(name):
            return f"{draft.name('transformers.TorchAoConfig', 'TransformersTorchAoConfig')}({inner})"
        return f"{draft.name('diffusers.TorchAoConfig')}({inner})"

    def pipeline_config(self, draft: Draft, names: tuple[str, ...]) -> str:
        unit = draft.text.indent_unit
        rows = [f"{unit}{unit}{draft.quote(n)}: {self.component_config(draft, n)}," for n in names]
        function = draft.name("diffusers.quantizers.PipelineQuantizationConfig")
        return "\n".join([f"{function}(", f"{unit}quant_mapping={{", *rows, f"{unit}}},", ")"])


class TorchAoInt8(_TorchAo):
    name = "torchao_int8"
    summary = "Load models with 8 bits per weight (torchao int8): half the memory, slight loss; best when compiled."
    quality = Quality.SLIGHT
    format, config = "int8", "Int8WeightOnlyConfig"

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained(
    "black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16
)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline, TorchAoConfig
from diffusers.quantizers import PipelineQuantizationConfig
from torchao.quantization import Int8WeightOnlyConfig
from transformers import TorchAoConfig as TransformersTorchAoConfig

quantization_config = PipelineQuantizationConfig(
    quant_mapping={
        "transformer": TorchAoConfig(Int8WeightOnlyConfig()),
        "text_encoder_2": TransformersTorchAoConfig(Int8WeightOnlyConfig()),
    },
)
pipe = FluxPipeline.from_pretrained(
    "black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16, quantization_config=quantization_config
)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "torchao_int8(transformer, text_encoder_2)",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "torchao_int8(transformer)+fp8_casting(transformer)",
            "one of the two is enough",
        ),
    )


class TorchAoFp8(_TorchAo):
    name = "torchao_fp8"
    summary = "Load models with 8 bits per weight (torchao fp8): half the memory, slight loss; Ada, Hopper or newer."
    quality = Quality.SLIGHT
    format, config = "fp8", "Float8WeightOnlyConfig"

    def applies_to(self, context: Context, application: Application) -> str | None:
        return _needs(context, (8, 9), "fp8 arithmetic") or super().applies_to(context, application)

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline, TorchAoConfig

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline, TorchAoConfig
from diffusers.quantizers import PipelineQuantizationConfig
from torchao.quantization import Float8WeightOnlyConfig

quantization_config = PipelineQuantizationConfig(
    quant_mapping={
        "transformer": TorchAoConfig(Float8WeightOnlyConfig()),
    },
)
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16, quantization_config=quantization_config).to("cuda")
image = pipe("a cat").images[0]
""",
            "torchao_fp8(transformer)",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "torchao_fp8(unet)",
            "no component 'unet'",
        ),
    )


class TorchAoInt4(_TorchAo):
    name = "torchao_int4"
    summary = "Load models with 4 bits per weight (torchao int4): a quarter of the memory, visible loss."
    quality = Quality.NOTICEABLE
    format, config = "int4", "Int4WeightOnlyConfig"

    def options(self, context: Context) -> tuple[Application, ...]:
        # Its kernels come in packages of their own, which differ by card; never offered, only written when asked for.
        return ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if any(context.compute_dtype(n) != "bfloat16" for n in application.components):
            return "its kernels compute in bf16; load the pipeline with torch.bfloat16."
        return _needs(context, (8, 0), "bf16 tensor cores") or super().applies_to(context, application)

    def write(self, draft: Draft, application: Application) -> None:
        draft.warn("torchao's int4 kernels may need a package of their own for your card; it says which when it runs.")
        super().write(draft, application)

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained(
    "black-forest-labs/FLUX.1-dev",
    torch_dtype=torch.bfloat16,
)
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline, TorchAoConfig
from diffusers.quantizers import PipelineQuantizationConfig
from torchao.quantization import Int4WeightOnlyConfig

quantization_config = PipelineQuantizationConfig(
    quant_mapping={
        "transformer": TorchAoConfig(Int4WeightOnlyConfig()),
    },
)
pipe = FluxPipeline.from_pretrained(
    "black-forest-labs/FLUX.1-dev",
    torch_dtype=torch.bfloat16,
    quantization_config=quantization_config,
)
image = pipe("a cat").images[0]
""",
            "torchao_int4(transformer)",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.float16).to("cuda")
image = pipe("a cat").images[0]
""",
            "torchao_int4(transformer)",
            "bf16",
        ),
    )


def _needs(context: Context, capability: tuple[int, int], what: str) -> str | None:
    card = context.target.card if context.target else None
    if card is None or card.compute_capability is None or card.compute_capability >= capability:
        return None
    return f"{card.label} has no {what}."
