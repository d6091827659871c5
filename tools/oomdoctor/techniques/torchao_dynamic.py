"""torchao int8 for weights and, on the fly, for activations: half the memory of the large linear layers, and faster.

Pays off when the model is compiled and the batch is large enough to keep the card busy. Small layers lose more time to
converting than they gain, so a filter function leaves them alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique, Use
from oomdoctor.techniques.effects import Effect, SpeedFactor, Store
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_CONFIG = "Int8DynamicActivationInt8WeightConfig"
_SMALLEST = 512
_OLD = "apply_dynamic_quant"


class TorchAoDynamic(Technique):
    name = "torchao_dynamic"
    summary = (
        "Convert large linear layers to int8 with int8 activations (torchao): half the memory, fast when compiled."
    )
    docs = "https://huggingface.co/docs/diffusers/optimization/fp16#dynamic-quantization"
    tags = ("quantization", "speed")
    phase = Phase.QUANTIZE
    quality = Quality.NOTICEABLE
    group = "quantisation"
    conflicts = ("quantization",)
    words = "components"
    keys = {"smallest": (int,)}
    explains = {
        "component": "The models to convert; those that run the steps by default.",
        "smallest": "Layers with fewer inputs than this keep their format; 512 when nothing is said.",
    }
    packages = ("torchao",)

    def options(self, context: Context) -> tuple[Application, ...]:
        # Activations in 8 bits show; it is there for whoever asks for speed by name.
        return ()

    def resolve(self, application: Application, context: Context) -> Application:
        names = application.components or context.denoisers
        smallest = application.option("smallest", _SMALLEST)
        return application.model_copy(update={"components": tuple(names), "options": (("smallest", smallest),)})

    def applies_to(self, context: Context, application: Application) -> str | None:
        if not application.components:
            return "the script does not tell which model runs the steps; name it, as in torchao_dynamic(transformer)."
        if context.older("torchao", "0.15"):
            return "it needs torchao 0.15 or newer (pip install -U torchao)."
        unknown = [n for n in application.components if not context.may_have(n)]
        if unknown:
            return f"there is no component {', '.join(unknown)}; there are {', '.join(context.components)}."
        card = context.target.card if context.target else None
        if card is not None and card.compute_capability is not None and card.compute_capability < (8, 0):
            return f"{card.label} has no fast int8 kernels for it."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        stores = (Store(n, "int8", linear_only=True, at_load=False) for n in application.components)
        return (*stores, SpeedFactor(1.0, low=0.7, high=1.2, source="diffusers documentation: pays off when compiled"))

    def write(self, draft: Draft, application: Application) -> None:
        if draft.context.missing("torchao"):
            draft.warn("This needs the package torchao: pip install -U torchao")
        if not any("offload" in a.technique for a in draft.context.strategy.applications):
            draft.postpone_placement('`.to("cuda")` comes after converting, so the card never holds the full size.')
        smallest = int(application.option("smallest", _SMALLEST))
        linear = draft.name("torch.nn") + ".Linear"
        keep = f"lambda module, name: isinstance(module, {linear}) and module.in_features >= {smallest}"
        config = f"{draft.name(f'torchao.quantization.{_CONFIG}')}()"
        for name in application.components:
            call = draft.call(
                draft.name("torchao.quantization.quantize_"), draft.component(name), config, f"filter_fn={keep}"
            )
            draft.after_load([call], self.phase, f"Converts the large layers of the {name} to 8 bits.")

    def tidy(self, draft: Draft, application: Application) -> None:
        """``apply_dynamic_quant``, which torchao no longer has, becomes what took its place."""
        for use in self.found(draft.use):
            node = draft.tree.call(use.found.span)
            if use.verb != _OLD or node is None or not 1 <= len(node.args) <= 2 or node.keywords:
                continue
            reason = "torchao has no apply_dynamic_quant any more; this is what took its place."
            config = draft.name(f"torchao.quantization.{_CONFIG}")
            draft.edit(*draft.text.node(node.func), draft.name("torchao.quantization.quantize_"), reason)
            end = draft.text.node(node.args[0])[1]
            draft.edit(end, end, f", {config}()", "")
            if len(node.args) == 2:
                start = draft.text.node(node.args[1])[0]
                draft.edit(start, start, "filter_fn=", "")

    def owns(self, use: Use) -> bool:
        return use.verb == _OLD or use.verb == "quantize_" and _CONFIG in (use.text("1") or use.text("config") or "")

    def read(self, context: Context) -> Application | None:
        found = self.found(context.use)
        if not found:
            return None
        limit = (found[0].text("filter_fn") or "").rpartition(">=")[2].strip()
        options = (("smallest", int(limit) if limit.isdigit() else _SMALLEST),)  # a filter of one's own stays
        names = context.denoisers if context.use.kind == "model" else tuple(u.owner for u in found)
        return Application(technique=self.name, components=names, options=options)

    examples: ClassVar = (
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
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
quantize_(
    pipe.transformer,
    Int8DynamicActivationInt8WeightConfig(),
    filter_fn=lambda module, name: isinstance(module, torch.nn.Linear) and module.in_features >= 512,
)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "torchao_dynamic(transformer)",
            why="small layers are filtered out",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline
from torchao import apply_dynamic_quant

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
apply_dynamic_quant(pipe.transformer, large_layers)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
quantize_(pipe.transformer, Int8DynamicActivationInt8WeightConfig(), filter_fn=large_layers)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "torchao_dynamic(transformer)",
            why="what torchao no longer has is written as it is today",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "torchao_dynamic(transformer)+bnb_nf4(transformer)",
            "cannot be combined",
        ),
    )
