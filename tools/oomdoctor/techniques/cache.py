"""Step caching: skip work whose result hardly changes from step to step. Time for quality, and memory on top.

The kept activations live on the card, so this is for people with memory to spare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Use
from oomdoctor.techniques.effects import Effect, ExtraMemory, SpeedFactor
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_CONFIGS = {
    "first_block": "diffusers.FirstBlockCacheConfig",
    "taylorseer": "diffusers.TaylorSeerCacheConfig",
    "pyramid": "diffusers.PyramidAttentionBroadcastConfig",
}


class Cache(LinesTechnique):
    name = "cache"
    summary = "Reuse results between steps: faster, visibly different, and more memory."
    docs = "https://huggingface.co/docs/diffusers/optimization/cache"
    tags = ("speed",)
    phase = Phase.ATTENTION
    quality = Quality.NOTICEABLE
    words = tuple(_CONFIGS)
    keys = {"threshold": (float,)}
    explains = {
        "first_block": "Skips a step whose first block barely changed.",
        "taylorseer": "Extrapolates the skipped steps.",
        "pyramid": "Reuses attention results for a few steps; video models.",
        "threshold": "How much the first block may change; higher skips more steps and shows more.",
    }
    settles = False
    verbs = ("enable_cache",)
    reason = "Reuses results of earlier steps: faster, at the price of memory and small changes."

    def options(self, context: Context) -> tuple[Application, ...]:
        return ()

    def resolve(self, application: Application, context: Context) -> Application:
        words = application.components or ("first_block",)
        options = application.options
        if words == ("first_block",) and not options:
            options = (("threshold", 0.05),)
        return application.model_copy(update={"components": words, "options": options})

    def applies_to(self, context: Context, application: Application) -> str | None:
        if len(application.components) != 1:
            return "a model can have one cache; name one."
        if application.options and application.components != ("first_block",):
            return "only first_block takes a threshold."
        if not context.denoisers:
            return "the script does not tell which model runs the steps."
        if self.found(context.use) and self.read(context) is None:
            return "the script has a cache of another kind, and a model takes one at a time; take that out first."
        for name in context.denoisers:
            facts = context.model(name)
            if facts is None or not facts.cache:
                return f"{context.class_of(name) or name} cannot cache."
            if application.components == ("first_block",) and not facts.first_block:
                return f"the first-block cache of diffusers does not know the blocks of {context.class_of(name)}."
        told = context.facts is None or context.facts.cache_context
        if application.components == ("pyramid",) and context.facts is None:
            return "the pyramid cache asks the pipeline for the step it is at, and the script shows no pipeline that tells."
        if application.components == ("pyramid",) and context.facts is not None and not context.facts.current_timestep:
            return f"{context.pipeline_class} does not tell which step it is at, and the pyramid cache asks for that."
        if not told and application.components != ("pyramid",):
            return f"{context.pipeline_class} does not tell its model which pass of a step it is in, so caches fail."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        speed = SpeedFactor(
            0.67, low=0.5, high=1.0, source="diffusers documentation: about 1.5 times at threshold 0.05"
        )
        return (speed, ExtraMemory("transformer", activations=2.0))

    def lines(self, draft: Draft, application: Application) -> list[str]:
        config = draft.name(_CONFIGS[application.components[0]])
        given: list[str] = []
        if application.components == ("first_block",):
            given = [f"threshold={application.option('threshold', 0.05)}"]
        elif application.components == ("pyramid",):
            given = ["spatial_attention_block_skip_range=2", "spatial_attention_timestep_skip_range=(100, 800)",
                     f"current_timestep_callback=lambda: {draft.pipe}.current_timestep"]  # fmt: skip
        written = draft.call(config, *given)
        return [f"{draft.component(n)}.enable_cache({written})" for n in draft.context.denoisers]

    def owns(self, use: Use) -> bool:
        return use.verb == "enable_cache"

    def read(self, context: Context) -> Application | None:
        found = self.found(context.use)
        config = found[0].argument("0", found[0].argument("config")) if found else None
        if not isinstance(config, dict):
            return None
        word = next((w for w, q in _CONFIGS.items() if q.endswith("." + str(config.get("class")))), None)
        if word is None:
            return None
        threshold = (config.get("arguments") or {}).get("threshold")
        options = (("threshold", float(threshold)),) if isinstance(threshold, int | float) else ()
        return self.resolve(Application(technique=self.name, components=(word,), options=options), context)

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
from diffusers import FirstBlockCacheConfig, FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.05))
image = pipe("a cat").images[0]
""",
            "cache(first_block)",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
image = pipe("a cat").images[0]
""",
            "cache(first_block)",
            "cannot cache",
        ),
    )
