"""Layerwise casting: weights are stored in 8 bits and widened to the compute dtype for each layer's forward.

Half the memory of bf16 weights, no new package, and a little time per layer. Layers that suffer (norms, embeddings of
position and patches) keep their precision: the model classes name them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique, Use
from oomdoctor.techniques.effects import Effect, Store
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_VERBS = ("enable_layerwise_casting", "apply_layerwise_casting")


class Fp8Casting(Technique):
    name = "fp8_casting"
    summary = "Store the weights of a model in fp8 and compute in 16 bits: half the memory, slight loss, little time."
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#layerwise-casting"
    tags = ("layerwise_casting",)
    phase = Phase.CAST
    quality = Quality.SLIGHT
    group = "offloading / casting"
    words = "components"
    explains = {
        "component": "The models to cast; those that run the steps by default.",
    }

    def options(self, context: Context) -> tuple[Application, ...]:
        names = self._default(context)
        return (Application(technique=self.name, components=names),) if names else ()

    def _default(self, context: Context) -> tuple[str, ...]:
        return context.denoisers

    def resolve(self, application: Application, context: Context) -> Application:
        names = application.components or self._default(context)
        return application.model_copy(update={"components": tuple(names)})

    def applies_to(self, context: Context, application: Application) -> str | None:
        if not application.components:
            return "the script does not tell which model runs the steps; name it, as in fp8_casting(transformer)."
        if context.older("diffusers", "0.33"):
            return "it needs diffusers 0.33 or newer (pip install -U diffusers)."
        for name in application.components:
            if context.casting_breaks(name):
                return f"{context.class_of(name)} ({name}) reads the dtype of its own weights and fails; quantise it instead."
            if context.reads_dtype(name):
                return f"{context.pipeline_class} makes tensors in the dtype of the {name}'s weights, which would fail."
            if not context.may_have(name):
                return f"{context.pipeline_class} has no component {name!r}; it has {', '.join(context.components)}."
            if context.use.kind == "pipeline" and context.facts is not None and context.model(name) is None:
                return (
                    f"{name} is not a diffusers model and may read the dtype of its own weights; quantise it instead."
                )
            for planned in context.strategy.applications:
                if "quantization" in _tags(planned) and name in (planned.components or context.denoisers):
                    return (
                        f"{name} would be quantised by {planned.technique} and cast as well; one of the two is enough."
                    )
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return tuple(
            Store(name, "fp8", respects_skip_patterns=True, compute_dtype="bf16", at_load=False)
            for name in application.components
        )

    def write(self, draft: Draft, application: Application) -> None:
        names = [a.technique for a in draft.context.strategy.applications]
        if not any("offload" in name or name in ("device_map", "text_encoder_release") for name in names):
            draft.postpone_placement(
                '`.to("cuda")` comes after casting, so the card never holds the weights in 16 bits.'
            )
        storage = draft.name("torch.float8_e4m3fn")
        for name in application.components:
            draft.after_load(
                [
                    draft.call(
                        f"{draft.component(name)}.enable_layerwise_casting",
                        f"storage_dtype={storage}",
                        f"compute_dtype={draft.compute_dtype(name)}",
                    )
                ],
                self.phase,
                f"Stores the {name}'s weights in 8 bits and widens them layer by layer: half the memory.",
            )

    def owns(self, use: Use) -> bool:
        return use.verb in _VERBS

    def read(self, context: Context) -> Application | None:
        found = self.found(context.use)
        if not found:
            return None
        if context.use.kind == "model":
            planned = context.planned(self.name)
            return Application(technique=self.name, components=planned.components if planned else ())
        names = dict.fromkeys(u.owner.split(".")[0] for u in found)
        return Application(technique=self.name, components=tuple(names))

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

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "fp8_casting(transformer)",
            why="cast first, then to the card",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
pipe.load_lora_weights("some/lora")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.load_lora_weights("some/lora")
pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()
image = pipe("a cat").images[0]
""",
            "model_offload+fp8_casting(transformer)",
            why="LoRA, then casting, then offloading, whatever the order in the id",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "fp8_casting(text_encoder_2)",
            "quantise it instead",
        ),
    )


def _tags(application: Application) -> tuple[str, ...]:
    from oomdoctor.techniques import technique

    return technique(application.technique).tags
