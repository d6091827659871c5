"""The sequence of one picture or video is split over several cards: activations shrink, weights do not.

Every process holds the whole model, so this helps long videos, not large models. The script must be started by
``torchrun``, once per card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Use
from oomdoctor.techniques.effects import Effect, MultiGpu
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


class ContextParallel(LinesTechnique):
    name = "context_parallel"
    summary = "Split the sequence over several cards (torchrun): activations shrink, weights do not."
    docs = "https://huggingface.co/docs/diffusers/training/distributed_inference#context-parallelism"
    tags = ("multi_gpu",)
    phase = Phase.ATTENTION
    quality = Quality.EQUIVALENT
    conflicts = ("device_map", "offload", "group_offload")
    keys = {"cards": (int,)}
    explains = {
        "cards": "How many cards share the sequence.",
    }
    verbs = ("enable_parallelism", "init_process_group")
    reason = "Splits the sequence over the cards; each process works on its share."

    def options(self, context: Context) -> tuple[Application, ...]:
        plain = self.resolve(Application(technique=self.name), context)
        return (plain,) if context.target is not None and self.applies_to(context, plain) is None else ()

    def resolve(self, application: Application, context: Context) -> Application:
        if application.options:
            return application
        cards = context.target.gpu_count if context.target is not None else 2
        return application.model_copy(update={"options": (("cards", cards),)})

    def applies_to(self, context: Context, application: Application) -> str | None:
        if int(application.option("cards", 2)) < 2 or (context.target is not None and context.target.gpu_count < 2):
            return "there is one card only."
        if context.older("diffusers", "0.36"):
            return "it needs diffusers 0.36 or newer (pip install -U diffusers)."
        if not context.denoisers:
            return "the script does not tell which model runs the steps."
        for name in context.denoisers:
            facts = context.model(name)
            if facts is None or not facts.context_parallel:
                return f"{context.class_of(name) or name} has no plan for splitting its sequence."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (MultiGpu(int(application.option("cards", 2)), "context"),)

    def lines(self, draft: Draft, application: Application) -> list[str]:
        config = draft.name("diffusers.ContextParallelConfig")
        torch = draft.name("torch.distributed").removesuffix(".distributed")
        cards = int(application.option("cards", 2))
        draft.by_hand(
            f"Start the script with: torchrun --nproc-per-node {cards} SCRIPT; every process saves its result."
        )
        return [
            f"{torch}.distributed.init_process_group({draft.quote('nccl')})",
            f"{torch}.cuda.set_device({torch}.distributed.get_rank())",
            f"{draft.pipe}.to({draft.quote('cuda')})",
            *(
                f"{draft.component(n)}.enable_parallelism(config={config}(ulysses_degree={cards}))"
                for n in draft.context.denoisers
            ),
        ]

    def tidy(self, draft: Draft, application: Application) -> None:
        if not self.found(draft.use):
            draft.remove_placement("Each process first chooses its own card.")

    def owns(self, use: Use) -> bool:
        return use.verb == "enable_parallelism"

    def read(self, context: Context) -> Application | None:
        found = self.found(context.use)
        if not found:
            return None
        config = found[0].argument("config", found[0].argument("0"))
        degree = (config.get("arguments") or {}).get("ulysses_degree") if isinstance(config, dict) else None
        return Application(technique=self.name, options=(("cards", degree),) if isinstance(degree, int) else ())

    def remove(self, draft: Draft) -> None:
        super().remove(draft)
        draft.remove_calls(("distributed.init_process_group", "cuda.set_device"), "Each process chose its own card.")

    examples: ClassVar = (
        Refusal(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
image = pipe("a cat").images[0]
""",
            "context_parallel(cards=2)",
            "no plan",
        ),
        Changes(
            """\
import torch
from diffusers import WanPipeline

pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", torch_dtype=torch.bfloat16).to("cuda")
video = pipe("a cat").frames[0]
""",
            """\
import torch
from diffusers import ContextParallelConfig, WanPipeline

pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", torch_dtype=torch.bfloat16)
torch.distributed.init_process_group("nccl")
torch.cuda.set_device(torch.distributed.get_rank())
pipe.to("cuda")
pipe.transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
video = pipe("a cat").frames[0]
""",
            "context_parallel(cards=2)",
            by_hand="torchrun --nproc-per-node 2",
        ),
    )
