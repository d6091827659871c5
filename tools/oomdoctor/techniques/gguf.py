"""A transformer from a GGUF file: weights quantised in advance, 2 to 8 bits, widened layer by layer.

A pipeline cannot quantise to GGUF; the file has to exist. ``gguf(transformer, file=PATH_OR_URL)``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.effects import Effect, Format, Store
from oomdoctor.techniques.quantisation import KEYWORD, by_itself, configurations
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_LEVEL = re.compile(r"[-_.]I?Q([2-8])", re.IGNORECASE)
_FORMATS: dict[int, Format] = {2: "gguf-q4", 3: "gguf-q4", 4: "gguf-q4", 5: "gguf-q5", 6: "gguf-q6", 8: "gguf-q8"}


class Gguf(Technique):
    name = "gguf"
    summary = "Take the transformer from a GGUF file with 2 to 8 bits per weight; visible loss at 4 and below."
    docs = "https://huggingface.co/docs/diffusers/quantization/gguf"
    tags = ("quantization",)
    phase = Phase.QUANTIZE
    quality = Quality.NOTICEABLE
    group = "quantisation"
    conflicts = ("quantization",)
    words = "components"
    keys = {"file": (str,)}
    explains = {
        "component": "The one model that the file holds.",
        "file": "Path or address of the .gguf file.",
    }
    packages = ("gguf",)

    def options(self, context: Context) -> tuple[Application, ...]:
        # Which files exist for a model is not known here; a person names one.
        return ()

    def resolve(self, application: Application, context: Context) -> Application:
        names = application.components or context.denoisers[:1]
        return application.model_copy(update={"components": tuple(names)})

    def applies_to(self, context: Context, application: Application) -> str | None:
        file = str(application.option("file", ""))
        if not file.endswith(".gguf"):
            return "name the file, as in gguf(transformer, file=https://.../flux1-dev-Q4_K_S.gguf)."
        if len(application.components) != 1:
            return "one file holds one model; name one component."
        name = application.components[0]
        facts = context.model(name)
        if facts is None or not facts.single_file:
            return f"{context.class_of(name) or name} cannot be loaded from a single file."
        if context.older("diffusers", "0.32"):
            return "it needs diffusers 0.32 or newer (pip install -U diffusers)."
        loaded = by_itself(context, name)
        own = configurations(context).get(name)
        ours = own is not None and own.kind == self.name
        if loaded is not None and not ours:
            line = loaded.span.line if loaded.span else 0
            return f"the script loads the {name} by itself in line {line}; take that out first."
        handed = name in context.use.load_arguments or any(c.name == name for c in context.use.components)
        if loaded is None and handed:
            return f"the script hands the pipeline a {name} of its own; take that out first."
        if loaded is None and not isinstance(context.use.model.value, str):
            return "the model id is not known, and the file needs its configuration."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        level = _LEVEL.search(str(application.option("file", "")))
        stored = _FORMATS.get(int(level.group(1)), "gguf-q8") if level else "gguf-q8"
        return (Store(application.components[0], stored, linear_only=True, compute_dtype="bf16"),)

    def write(self, draft: Draft, application: Application) -> None:
        context, name, quote = draft.context, application.components[0], draft.quote
        if context.missing("gguf"):
            draft.warn("This needs the package gguf: pip install -U gguf")
        file = quote(str(application.option("file", "")))
        loaded = by_itself(context, name)
        if loaded is not None and loaded.model.span is not None:
            draft.replace(loaded.model.span, file, f"Takes the {name} from this file.")
            return
        model = context.use.model
        written = quote(str(model.value)) if model.certainty == "literal" else draft.written(model)
        unit = draft.text.indent_unit

        def load() -> str:
            config, compute = draft.name("diffusers.GGUFQuantizationConfig"), draft.compute_dtype(name)
            lines = [
                f"{name} = {draft.name(f'diffusers.{context.class_of(name)}')}.from_single_file(",
                f"{unit}{file},",
                f"{unit}{KEYWORD}={config}(compute_dtype={compute}),",
                f"{unit}config={written},",
                f"{unit}subfolder={quote(name)},",
                f"{unit}{context.dtype_keyword}={compute},",
                ")",
            ]
            return "\n".join(lines)

        reason = f"Takes the {name} from a file with fewer bits per weight."
        draft.before_load_for(name, load, reason, f"Uses that {name} instead of the full-size one.", self.phase)

    def read(self, context: Context) -> Application | None:
        for name, config in configurations(context).items():
            loaded = by_itself(context, name)
            if config.kind == self.name and loaded is not None:
                file = loaded.model.value
                options = (("file", file),) if isinstance(file, str) else ()
                return Application(technique=self.name, components=(name,), options=options)
        return None

    def remove(self, draft: Draft) -> None:
        reason = self.why_gone(draft)
        for name, config in configurations(draft.context).items():
            loaded = by_itself(draft.context, name)
            statement = draft.tree.statement(loaded.span) if loaded and loaded.span else None
            if config.kind == self.name and statement is not None:
                draft.remove_statement(statement, reason)
                draft.remove_load_argument(name, reason)

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, GGUFQuantizationConfig

transformer = FluxTransformer2DModel.from_single_file(
    "flux1-dev-Q4_K_S.gguf",
    quantization_config=GGUFQuantizationConfig(compute_dtype=torch.bfloat16),
    config="black-forest-labs/FLUX.1-dev",
    subfolder="transformer",
    torch_dtype=torch.bfloat16,
)
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16, transformer=transformer)
pipe.enable_model_cpu_offload()
image = pipe("a cat").images[0]
""",
            "gguf(transformer, file=flux1-dev-Q4_K_S.gguf)+model_offload",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
image = pipe("a cat").images[0]
""",
            "gguf(transformer)",
            "name the file",
        ),
    )
