"""Components spread over several cards while loading. Works with whole components only: the largest must fit one card."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.effects import Effect, MultiGpu
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


class DeviceMap(Technique):
    name = "device_map"
    summary = "Spread the components over all cards of the machine while loading."
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#device-placement"
    tags = ("multi_gpu", "loading")
    phase = Phase.LOAD
    quality = Quality.IDENTICAL
    conflicts = ("offload", "group_offload", "context_parallel")
    words = ("balanced",)
    keys = {"cards": (int,), "max_gib": (int,)}
    explains = {
        "balanced": "Whole components, spread evenly.",
        "cards": "How many cards there are.",
        "max_gib": "How much of each card weights may take, in GiB.",
    }

    def options(self, context: Context) -> tuple[Application, ...]:
        plain = self.resolve(Application(technique=self.name), context)
        return (plain,) if context.target is not None and self.applies_to(context, plain) is None else ()

    def resolve(self, application: Application, context: Context) -> Application:
        options = dict(application.options)
        if context.target is not None and "cards" not in options:
            options["cards"] = context.target.gpu_count
        return application.model_copy(
            update={"components": application.components or ("balanced",), "options": tuple(options.items())}
        )

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.use.kind != "pipeline" or context.use.loader != "from_pretrained":
            return "only a pipeline that is loaded by from_pretrained can be spread over cards."
        if context.target is not None and context.target.gpu_count < 2:
            return "there is one card only."
        if context.missing("accelerate"):
            return "it needs the package accelerate, which is not installed (pip install accelerate)."
        low = context.use.load_arguments.get("low_cpu_mem_usage")
        if low is not None and low.value is False:
            return "the script loads with low_cpu_mem_usage=False, which excludes it."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (MultiGpu(int(application.option("cards", 2)), "components"),)

    def write(self, draft: Draft, application: Application) -> None:
        reason = "Puts whole components on different cards while loading."
        draft.remove_placement("The device map places the components; moving the pipeline as a whole is an error then.")
        draft.set_load_argument("device_map", draft.quote("balanced"), reason)
        limit = int(application.option("max_gib", 0))
        if limit:
            cards = int(application.option("cards", 2))
            sizes = ", ".join(f"{i}: {draft.quote(f'{limit}GiB')}" for i in range(cards))
            draft.set_load_argument("max_memory", f"{{{sizes}}}", "Leaves room for activations on each card.")

    def read(self, context: Context) -> Application | None:
        known = context.use.load_arguments.get("device_map")
        if known is None or known.value != "balanced":
            return None
        limits = context.use.load_arguments.get("max_memory")
        options: dict[str, int] = {}
        if limits is not None and isinstance(limits.value, dict) and limits.value:
            text = str(next(iter(limits.value.values())))
            options = {"cards": len(limits.value)}
            if text.endswith("GiB") and text.removesuffix("GiB").isdigit():
                options["max_gib"] = int(text.removesuffix("GiB"))
        return self.resolve(Application(technique=self.name, options=tuple(options.items())), context)

    def remove(self, draft: Draft) -> None:
        reason = "Takes out the device map: the chosen strategy places weights itself."
        for keyword in ("device_map", "max_memory"):
            draft.remove_load_argument(keyword, reason)
        draft.unplaced += [p for p in draft.use.placements if p.kind == "device_map"]

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
    )
