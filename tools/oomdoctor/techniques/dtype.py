"""Weights in 16 bits instead of 32: half the memory of everything, and the faster kernels.

A pipeline that is loaded without a dtype is float32, a very common cause of running out of memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.effects import Effect, Store
from oomdoctor.values import Application, Loaded, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_TORCH = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}
_READ = {"bfloat16": "bf16", "float16": "fp16"}
_LOADERS = ("from_pretrained", "from_single_file")


class Dtype(Technique):
    name = "dtype"
    summary = "Load weights as bf16 (or fp16): half the memory of float32 and faster; differences are invisible."
    docs = "https://huggingface.co/docs/diffusers/optimization/fp16#model-data-type"
    tags = ("dtype", "loading", "speed")
    phase = Phase.LOAD_DTYPE
    quality = Quality.SLIGHT
    words = ("bf16", "fp16")
    explains = {
        "bf16": "bfloat16: the range of float32; cards since 2020.",
        "fp16": "float16: for older cards and models made for it.",
    }
    settles = False

    def options(self, context: Context) -> tuple[Application, ...]:
        if _is_16_bit(context):
            return ()
        capability = context.target.card.compute_capability if context.target else None
        best = "fp16" if capability is not None and capability < (8, 0) else "bf16"
        return (Application(technique=self.name, components=(best,)),)

    def resolve(self, application: Application, context: Context) -> Application:
        if application.components:
            return application
        return (self.options(context) or (Application(technique=self.name, components=("bf16",)),))[0]

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.use.loader not in _LOADERS:
            return "the dtype is chosen where weights are loaded, and this pipeline is built from parts loaded before."
        if application.components == ("bf16",) and context.target is not None:
            capability = context.target.card.compute_capability
            if capability is not None and capability < (8, 0):
                return f"{context.target.card.label} has no bf16 units; use dtype(fp16)."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (Store("*", "fp16" if application.components == ("fp16",) else "bf16"),)

    def write(self, draft: Draft, application: Application) -> None:
        wanted = application.components[0]
        value = draft.name(_TORCH[wanted])
        context = draft.context
        reason = (
            f"Loads the weights in 16 bits ({wanted}): without it they are float32 and take twice the memory."
            if context.use.dtype.text is None
            else f"Loads the weights as {wanted}."
        )
        draft.set_load_argument(context.dtype_keyword, value, reason)
        draft.drop_dtypes("The dtype is chosen where the weights are loaded.")
        for loaded in context.use.components:
            if _loads_as_float32(loaded):
                keyword = next((k for k in ("dtype", "torch_dtype") if k in loaded.arguments), "torch_dtype")
                draft.set_load_argument(keyword, value, f"Loads {loaded.name} in 16 bits like the rest.", loaded)

    def read(self, context: Context) -> Application | None:
        known = _READ.get(str(context.use.dtype.value).removeprefix("torch."))
        moves = [p for p in context.use.placements if p.target in ("", context.use.variable) and p.dtype.text]
        if known is None or any(_loads_as_float32(c) for c in context.use.components):
            return None
        if any(p.dtype.value != context.use.dtype.value for p in moves):
            return None
        return Application(technique=self.name, components=(known,))

    def remove(self, draft: Draft) -> None:
        for keyword in ("dtype", "torch_dtype"):
            if keyword in draft.use.load_arguments:
                if not draft.renews and _is_the_scripts_own(draft.context, keyword):
                    draft.warn(
                        f"{keyword} stays: it would have been written in another way, so the script had it before."
                    )
                    continue
                draft.remove_load_argument(keyword, "Goes back to the library's default, float32.")
                if not draft.renews:
                    draft.warn("Weights are float32 now; put the dtype back if the script had one of its own.")

    examples: ClassVar = (
        Changes(
            """\
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0").to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "dtype(bf16)",
            versions=(("diffusers", "0.42.1"),),
            why="no dtype means float32",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained(
    'black-forest-labs/FLUX.1-dev',
    torch_dtype=torch.float32,  # safest
)
pipe.to('cuda')
image = pipe('a cat').images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained(
    'black-forest-labs/FLUX.1-dev',
    torch_dtype=torch.bfloat16,  # safest
)
pipe.to('cuda')
image = pipe('a cat').images[0]
""",
            "dtype(bf16)",
            why="the script's own keyword stays",
        ),
        Refusal(
            """\
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline(vae=vae, text_encoder=te, tokenizer=tok, unet=unet, scheduler=sch,
                               safety_checker=None, feature_extractor=None)
image = pipe("a cat").images[0]
""",
            "dtype(bf16)",
            "built from parts",
        ),
    )


def _is_the_scripts_own(context: Context, keyword: str) -> bool:
    """What this technique would not write: another dtype, or the name that the installed version warns about."""
    installed = context.version("diffusers")
    return not _is_16_bit(context) or (keyword == "torch_dtype" and installed is not None and installed >= (0, 40))


def _is_16_bit(context: Context) -> bool:
    return str(context.use.dtype.value).removeprefix("torch.") in _READ


def _loads_as_float32(loaded: Loaded) -> bool:
    """A model that is loaded by itself without a dtype, or as float32."""
    if loaded.loader not in _LOADERS or "quantization_config" in loaded.arguments:
        return False
    if loaded.class_name is None or any(w in loaded.class_name for w in ("Tokenizer", "Scheduler", "Processor")):
        return False
    written = loaded.dtype.text is not None or loaded.dtype.value is not None
    return not written or str(loaded.dtype.value).endswith("float32") or loaded.dtype.certainty == "default"
