"""More than one card: whole components spread evenly, one model spread layer by layer, or a card for each component.

*balanced* works with whole components, so the largest must fit one card. *auto* splits one model between its blocks; the
cards work one after the other, so nothing gets faster. Naming cards is for machines where the even spread does not fit.
A script that offloads needs no map: one that cannot be taken out is reset before offloading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.device_map import parts
from oomdoctor.techniques.effects import Effect, MultiGpu
from oomdoctor.units import GIB, human
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_WORDS = ("balanced", "auto")


class DeviceMap(Technique):
    name = "device_map"
    summary = "Spread the pipeline over all cards of the machine: whole components, or one model layer by layer."
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#device-placement"
    tags = ("multi_gpu", "loading")
    phase = Phase.LOAD
    quality = Quality.IDENTICAL
    conflicts = ("offload", "group_offload", "context_parallel")
    words = "any"
    keys = {"cards": (int,), "max_gib": (int,), "first_gib": (int,)}
    component_keys = (int,)
    explains = {
        "balanced": "Whole components, spread evenly.",
        "auto": "The model that runs the steps (or the one that is named after it), layer by layer.",
        "component=": "The card of that component, counted from 0; those not named are on 0.",
        "cards": "How many cards there are.",
        "max_gib": "How much of each card weights may take, in GiB.",
        "first_gib": "The same for the first card alone, where the rest of the pipeline stands beside a spread model.",
    }

    def options(self, context: Context) -> tuple[Application, ...]:
        plain = self.resolve(Application(technique=self.name), context)
        return (plain,) if context.target is not None and self.applies_to(context, plain) is None else ()

    def resolve(self, application: Application, context: Context) -> Application:
        options, words = dict(application.options), application.components
        if _named(application):
            placed = {n: int(options.get(n, 0)) for n in dict.fromkeys([*context.components, *_named(application)])}
            return Application(technique=self.name, options=tuple(placed.items()))
        if context.target is not None and "cards" not in options:
            options["cards"] = context.target.gpu_count
        words = words or ("balanced",)
        if words[0] == "auto" and len(words) == 1:
            words = ("auto", *context.denoisers[:1])
        return application.model_copy(update={"components": words, "options": tuple(options.items())})

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.use.kind != "pipeline" and application.components[:1] != ("auto",):
            return "the script uses a bare model, which only device_map(auto) spreads."
        if context.target is not None and context.target.gpu_count < 2:
            return "there is one card only."
        if context.missing("accelerate"):
            return "it needs the package accelerate, which is not installed (pip install accelerate)."
        named = _named(application)
        if named:
            return "name cards or a way, not both." if application.components else parts.no_such_places(context, named)
        low = context.use.load_arguments.get("low_cpu_mem_usage")
        if low is not None and low.value is False:
            return "the script loads with low_cpu_mem_usage=False, which excludes it."
        word, *names = application.components or ("balanced",)
        if word not in _WORDS or len(names) > (word == "auto"):
            return f"say {' or '.join(_WORDS)}, or name a card for each component, as in device_map(transformer=1)."
        if word == "auto":
            if context.older("diffusers", "0.30"):
                return "models take device_map='auto' over several cards from diffusers 0.30 on."
            if not names:
                return (
                    "the script does not tell which model runs the steps; name it, as in device_map(auto, transformer)."
                )
            return _packed(context, names[0]) or parts.no_spreading(context, names[0])
        return self._unbalanced(context, application)

    @staticmethod
    def _unbalanced(context: Context, application: Application) -> str | None:
        if context.use.loader != "from_pretrained":
            return "only a pipeline that is loaded by from_pretrained can be spread evenly over cards."
        if own := parts.loaded_alone(context):
            return (
                f"{', '.join(own)} is loaded by itself and would stay in RAM; name a card for each component instead."
            )
        limit = int(application.option("max_gib", 0)) * GIB
        for component in context.measurement.components if context.measurement is not None and limit else ():
            if component.loaded_bytes > limit:
                return f"{component.name} alone is larger than that ({human(component.loaded_bytes)}) and would stay in RAM."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        cards = max([int(application.option("cards", 2)), *(c + 1 for c in _named(application).values())])
        return (MultiGpu(cards, "layers" if application.components[:1] == ("auto",) else "components"),)

    def write(self, draft: Draft, application: Application) -> None:
        named = _named(application)
        if named:
            parts.write_places(draft, named)
            return
        if draft.use.kind == "model":
            parts.write_bare(draft, application)
            return
        if application.components[0] == "auto":
            parts.write_spread(draft, application, application.components[1])
            return
        reason = "Puts whole components on different cards while loading."
        draft.remove_placement("The device map places the components; moving the pipeline as a whole is an error then.")
        draft.set_load_argument("device_map", draft.quote("balanced"), reason)
        if limits := parts.memory_limits(draft, application):
            draft.set_load_argument("max_memory", limits, "Leaves room for activations on each card.")

    def tidy(self, draft: Draft, application: Application) -> None:
        known = draft.use.load_arguments.get("device_map")
        if application.components != ("balanced",) or known is None or known.span is None:
            return
        if known.value in parts.MAPS and known.value != "balanced":
            reason = f"A pipeline does not take device_map={known.value!r}; this is the map that it takes."
            draft.replace(known.span, draft.quote("balanced"), reason)

    def read(self, context: Context) -> Application | None:
        if cards := parts.dispatched(context):
            return self.resolve(Application(technique=self.name, options=tuple(cards.items())), context)
        if (part := parts.spread_part(context)) is not None:
            options = tuple(parts.read_limits(part.arguments.get("max_memory")).items())
            return self.resolve(
                Application(technique=self.name, components=("auto", part.name), options=options), context
            )
        known = context.use.load_arguments.get("device_map")
        if known is None or known.value not in parts.MAPS or parts.is_reset(context):
            return None
        options = tuple(parts.read_limits(context.use.load_arguments.get("max_memory")).items())
        words = ("auto",) if context.use.kind == "model" else ()
        return self.resolve(Application(technique=self.name, components=words, options=options), context)

    def remove(self, draft: Draft) -> None:
        reason = "Takes out the device map: the chosen strategy places weights itself."
        if parts.dispatched(draft.context):
            parts.remove_places(draft, reason)
            return
        if (part := parts.spread_part(draft.context)) is not None:
            parts.remove_spread(draft, part, reason)
        draft.remove_placement(reason)

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0",
    torch_dtype=torch.float16,
)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0",
    torch_dtype=torch.float16,
    device_map="balanced",
)
image = pipe("a cat").images[0]
""",
            "device_map(balanced)",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
image = pipe("a cat").images[0]
""",
            "device_map(balanced)+model_offload",
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
from diffusers import FluxPipeline, FluxTransformer2DModel

transformer = FluxTransformer2DModel.from_pretrained(
    "black-forest-labs/FLUX.1-dev",
    device_map="auto",
    max_memory={0: "8GiB", 1: "18GiB"},
    subfolder="transformer",
    torch_dtype=torch.bfloat16,
)
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16, transformer=transformer, device_map="cuda")
image = pipe("a cat").images[0]
""",
            "device_map(auto, cards=2, max_gib=18, first_gib=8)",
            why="the largest model spread layer by layer, the rest on the first card",
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
from accelerate import dispatch_model

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
dispatch_model(pipe.text_encoder.to("cuda:0"), {"": 0}, force_hooks=True)
dispatch_model(pipe.text_encoder_2.to("cuda:1"), {"": 1}, force_hooks=True)
dispatch_model(pipe.transformer.to("cuda:0"), {"": 0}, force_hooks=True)
dispatch_model(pipe.vae.to("cuda:0"), {"": 0}, force_hooks=True)
image = pipe("a cat").images[0]
""",
            "device_map(text_encoder_2=1)",
            why="the large text encoder on a card of its own",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16, device_map="auto")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16, device_map="balanced")
image = pipe("a cat").images[0]
""",
            "device_map(balanced)",
            why="a pipeline takes no map of that name",
        ),
        Refusal(
            """\
import torch
from diffusers import PixArtSigmaPipeline

pipe = PixArtSigmaPipeline.from_pretrained("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", torch_dtype=torch.float16)
image = pipe("a cat").images[0]
""",
            "device_map(text_encoder=1)",
            "give both the same card",
        ),
        Refusal(
            """\
import torch
from diffusers import LTXPipeline

pipe = LTXPipeline.from_pretrained("Lightricks/LTX-Video", torch_dtype=torch.bfloat16)
video = pipe("a cat").frames[0]
""",
            "device_map(auto)",
            "must stay together",
        ),
    )


def _packed(context: Context, name: str) -> str | None:
    """Quantised and spread at once: the libraries convert on one card."""
    for planned in context.strategy.applications:
        if "quantization" in _tags(planned) and name in (planned.components or context.denoisers):
            return (
                f"{name} would be quantised by {planned.technique} and spread as well; quantised it may fit one card."
            )
    return None


def _tags(application: Application) -> tuple[str, ...]:
    from oomdoctor.techniques import technique

    return technique(application.technique).tags


def _named(application: Application) -> dict[str, int]:
    """The cards of a map that names them."""
    return {k: int(v) for k, v in application.options if k not in DeviceMap.keys}
