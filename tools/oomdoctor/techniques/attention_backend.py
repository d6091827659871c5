"""Which attention kernel the transformer uses. PyTorch's own choice (``native``) is already a fused one on most cards.

U-Nets know only xFormers: the other names would change nothing there but the process-wide default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Use
from oomdoctor.techniques.effects import Attention, Effect
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

BACKENDS = (
    "native", "_native_flash", "_native_efficient", "_native_cudnn", "_native_math", "flash", "flash_hub",
    "flash_varlen", "flash_varlen_hub", "flash_4_hub", "_flash_3", "_flash_3_hub", "_flash_3_varlen_hub", "flex", "sage",
    "sage_hub", "sage_varlen", "xformers", "aiter_fa2_hub",
)  # fmt: skip
_PACKAGES = {"flash": "flash-attn", "flash_varlen": "flash-attn", "sage": "sageattention", "sage_varlen": "sageattention",
             "xformers": "xformers", "_flash_3": "flash-attn-3"}  # fmt: skip
_KERNELS = {"_native_efficient": "efficient", "xformers": "efficient", "_native_math": "math", "native": "native"}


class AttentionBackend(LinesTechnique):
    name = "attention_backend"
    summary = "Choose the attention kernel (flash, sage, xformers ...): mostly speed; memory where math would be used."
    docs = "https://huggingface.co/docs/diffusers/optimization/attention_backends"
    tags = ("attention", "speed")
    phase = Phase.ATTENTION
    quality = Quality.EQUIVALENT
    words = "any"
    explains = {
        "native": "PyTorch's own choice.",
        "flash": "FlashAttention 2, package flash-attn.",
        "flash_hub": "FlashAttention 2 from the Hub, package kernels.",
        "sage": "SageAttention, 8 bits inside; package sageattention.",
        "xformers": "xFormers; the only one that acts on U-Nets.",
        "_native_efficient": "PyTorch's memory-efficient kernel.",
    }
    settles = False
    verbs = ("set_attention_backend", "enable_xformers_memory_efficient_attention")
    reason = "Uses another attention kernel."

    def options(self, context: Context) -> tuple[Application, ...]:
        # PyTorch already takes its flash or memory-efficient kernel; others need packages and cards of their own.
        return ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if len(application.components) != 1 or application.components[0] not in BACKENDS:
            return f"name one of {', '.join(BACKENDS)}."
        backend = application.components[0]
        if not context.denoisers:
            return "the script does not tell which model runs the steps."
        if "unet" in context.denoisers and backend != "xformers":
            return "it has no effect on a U-Net; only xformers has."
        if context.older("diffusers", "0.35") and backend != "xformers":
            return "it needs diffusers 0.35 or newer (pip install -U diffusers)."
        package = "kernels" if backend.endswith("_hub") else _PACKAGES.get(backend)
        if package is not None and context.missing(package):
            return f"it needs the package {package}, which is not installed (pip install {package})."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        backend = application.components[0]
        return (Attention(_KERNELS.get(backend, "sage" if "sage" in backend else "flash")),)

    def lines(self, draft: Draft, application: Application) -> list[str]:
        backend = application.components[0]
        if "sage" in backend:
            draft.warn("Sage attention computes in 8 bits: pictures differ slightly.")
        if "unet" in draft.context.denoisers:
            return [f"{draft.pipe}.enable_xformers_memory_efficient_attention()"]
        return [f"{draft.component(n)}.set_attention_backend({draft.quote(backend)})" for n in draft.context.denoisers]

    def owns(self, use: Use) -> bool:
        return use.verb in self.verbs

    def read(self, context: Context) -> Application | None:
        found = self.found(context.use)
        if not found:
            return None
        if found[0].verb.startswith("enable_xformers"):
            return Application(technique=self.name, components=("xformers",))
        backend = found[0].argument("0", found[0].argument("backend"))
        return Application(technique=self.name, components=(backend,)) if isinstance(backend, str) else None

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

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
pipe.transformer.set_attention_backend("flash_hub")
image = pipe("a cat").images[0]
""",
            "attention_backend(flash_hub)",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
image = pipe("a cat").images[0]
""",
            "attention_backend(flash)",
            "no effect on a U-Net",
        ),
    )
