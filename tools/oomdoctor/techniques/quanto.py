"""Quanto: weight-only int8, fp8 and int4 with a package of its own (optimum-quanto), which is no longer developed.

diffusers marks it as deprecated and drops it in 1.0; torchao does the same with a maintained package. So it is never
offered, only recognised, written when asked for by name, and taken out. Pipelines refuse ``quant_backend="quanto"``
(the two libraries' classes differ), so each component gets its own library's class in ``quant_mapping``. Scripts that
call ``quantize`` and ``freeze`` of the package themselves are understood as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Refusal, Use
from oomdoctor.techniques.quantisation import Quantiser
from oomdoctor.values import Application, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_TYPES = {"qint8": "quanto_int8", "qfloat8": "quanto_fp8", "qfloat8_e4m3fn": "quanto_fp8", "qint4": "quanto_int4"}


class _Quanto(Quantiser):
    """The three differ in the storage type alone."""

    docs = "https://huggingface.co/docs/diffusers/quantization/quanto"
    packages = ("optimum-quanto",)
    package, minimum = "optimum-quanto", "0.2.6"
    on_card = False
    weights: ClassVar[str]
    """As the configuration names it."""
    instead: ClassVar[str]

    def options(self, context: Context) -> tuple[Application, ...]:
        # Deprecated in diffusers; torchao does the same.
        return ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        version = context.version("diffusers")
        if version is not None and version >= (1, 0):
            return f"diffusers has no quanto any more from 1.0 on; use {self.instead}."
        if context.planned("group_offload") is not None:
            return "group offloading moves a weight's data, and quanto keeps its own inside of the tensor; use model_offload."
        return super().applies_to(context, application)

    def write(self, draft: Draft, application: Application) -> None:
        draft.warn(f"diffusers calls quanto deprecated and drops it in 1.0; {self.instead} does the same.")
        super().write(draft, application)

    sets_dtype = False

    def component_config(self, draft: Draft, name: str) -> str:
        kind = draft.quote(self.weights)
        if draft.context.is_transformers(name):
            return f"{draft.name('transformers.QuantoConfig', 'TransformersQuantoConfig')}(weights={kind})"
        return f"{draft.name('diffusers.QuantoConfig')}(weights_dtype={kind})"

    def pipeline_config(self, draft: Draft, names: tuple[str, ...]) -> str:
        unit = draft.text.indent_unit
        rows = [f"{unit}{unit}{draft.quote(n)}: {self.component_config(draft, n)}," for n in names]
        function = draft.name("diffusers.quantizers.PipelineQuantizationConfig")
        return "\n".join([f"{function}(", f"{unit}quant_mapping={{", *rows, f"{unit}}},", ")"])

    def owns(self, use: Use) -> bool:
        """``quantize(pipe.transformer, weights=qfloat8)``."""
        return use.verb == "quantize" and _TYPES.get(str(use.argument("weights")).rpartition(".")[2]) == self.name

    def read(self, context: Context) -> Application | None:
        configured = super().read(context)
        names = [*(configured.components if configured else ()), *(u.owner for u in self.found(context.use))]
        return Application(technique=self.name, components=tuple(dict.fromkeys(names))) if names else None

    def remove(self, draft: Draft) -> None:
        super().remove(draft)
        reason = self.why_gone(draft)
        owners = [u.owner for u in self.found(draft.use)]
        for found in draft.use.optimisations:
            if found.method.rpartition(".")[2] in ("quantize", "freeze") and (found.part or "") in owners:
                draft.remove_optimisation(found, reason)


class QuantoInt8(_Quanto):
    name = "quanto_int8"
    summary = "Load models with 8 bits per weight (quanto int8, deprecated): half the memory, slight loss."
    quality = Quality.SLIGHT
    format, weights, instead = "int8", "int8", "torchao_int8"

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
from diffusers import FluxPipeline, QuantoConfig
from diffusers.quantizers import PipelineQuantizationConfig
from transformers import QuantoConfig as TransformersQuantoConfig

quantization_config = PipelineQuantizationConfig(
    quant_mapping={
        "transformer": QuantoConfig(weights_dtype="int8"),
        "text_encoder_2": TransformersQuantoConfig(weights="int8"),
    },
)
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16, quantization_config=quantization_config)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "quanto_int8(transformer, text_encoder_2)",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "quanto_int8(transformer)",
            "no quanto any more",
            versions=(("diffusers", "1.0.0"),),
        ),
    )


class QuantoFp8(_Quanto):
    name = "quanto_fp8"
    summary = "Load models with 8 bits per weight (quanto fp8, deprecated): half the memory, slight loss."
    quality = Quality.SLIGHT
    format, weights, instead = "fp8", "float8", "fp8_casting"

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline
from optimum.quanto import freeze, qfloat8, quantize

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
quantize(pipe.transformer, weights=qfloat8)
freeze(pipe.transformer)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "fp8_casting(transformer)",
            why="the package's own functions are understood and go",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline
from optimum.quanto import freeze, qfloat8, quantize

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
quantize(pipe.transformer, weights=qfloat8)
freeze(pipe.transformer)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline
from optimum.quanto import freeze, qfloat8, quantize

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
quantize(pipe.transformer, weights=qfloat8)
freeze(pipe.transformer)
pipe.enable_model_cpu_offload()
image = pipe("a cat").images[0]
""",
            "quanto_fp8(transformer)+model_offload",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "quanto_fp8(transformer)+torchao_int8(text_encoder_2)",
            "cannot be combined",
        ),
    )


class QuantoInt4(_Quanto):
    name = "quanto_int4"
    summary = "Load models with 4 bits per weight (quanto int4, deprecated): a quarter of the memory, visible loss."
    quality = Quality.NOTICEABLE
    format, weights, instead = "int4", "int4", "bnb_nf4"

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

transformer = FluxTransformer2DModel.from_pretrained(
    "black-forest-labs/FLUX.1-dev", subfolder="transformer", torch_dtype=torch.bfloat16
)
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", transformer=transformer, torch_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, QuantoConfig

transformer = FluxTransformer2DModel.from_pretrained(
    "black-forest-labs/FLUX.1-dev", subfolder="transformer", torch_dtype=torch.bfloat16,
    quantization_config=QuantoConfig(weights_dtype="int4")
)
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", transformer=transformer, torch_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "quanto_int4(transformer)",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "quanto_int4(transformer)+group_offload(leaf)",
            "use model_offload",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_single_file("sdxl.safetensors", torch_dtype=torch.float16).to("cuda")
image = pipe("a cat").images[0]
""",
            "quanto_int4(unet)",
            "from_pretrained",
        ),
    )
