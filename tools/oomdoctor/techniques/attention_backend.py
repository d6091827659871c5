"""Which attention kernel the transformer uses. PyTorch's own choice (``native``) is already a fused one on most cards.

U-Nets know only xFormers: the other names would change nothing there but the process-wide default, so for them there is
sdpa_kernel. Kernels from the Hub are downloaded at the first use; the others are packages that have to fit the card and
the installed PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.script.kernels import BACKEND
from oomdoctor.techniques.base import Changes, Context, Phase, Refusal
from oomdoctor.techniques.effects import Attention, Effect
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.techniques.sdpa_kernel import take_out
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_PACKAGES = {
    "native": None, "_native_flash": None, "_native_efficient": None, "_native_cudnn": None, "_native_math": None,
    "flex": None,
    "flash": "flash-attn", "flash_varlen": "flash-attn", "_flash_3": "flash-attn-3", "_flash_varlen_3": "flash-attn-3",
    "sage": "sageattention", "sage_varlen": "sageattention", "_sage_qk_int8_pv_fp8_cuda": "sageattention",
    "_sage_qk_int8_pv_fp8_cuda_sm90": "sageattention", "_sage_qk_int8_pv_fp16_cuda": "sageattention",
    "_sage_qk_int8_pv_fp16_triton": "sageattention", "xformers": "xformers",
    "flash_hub": "kernels", "flash_varlen_hub": "kernels", "flash_4_hub": "kernels", "_flash_3_hub": "kernels",
    "_flash_3_varlen_hub": "kernels", "sage_hub": "kernels", "sage_blackwell_hub": "kernels", "aiter_fa2_hub": "kernels",
}  # fmt: skip
"""Backend -> the distribution it needs; those for other devices than CUDA and ROCm cards are left out."""
BACKENDS = tuple(_PACKAGES)
_SINCE = {"sage_blackwell_hub": (10, 0), "_flash_3": (9, 0), "_flash_varlen_3": (9, 0), "_flash_3_hub": (9, 0),
          "_flash_3_varlen_hub": (9, 0), "_sage_qk_int8_pv_fp8_cuda_sm90": (9, 0), "flash_4_hub": (9, 0),
          "_sage_qk_int8_pv_fp8_cuda": (8, 9)}  # fmt: skip
"""Compute capability below which there is no such kernel; other flash and sage kernels begin with Ampere."""
_ANY_CARD = ("native", "_native_efficient", "_native_math", "flex", "xformers")
_KERNELS = {"_native_efficient": "efficient", "xformers": "efficient", "_native_math": "math", "native": "native"}
_XFORMERS = ("enable_xformers_memory_efficient_attention", "set_use_memory_efficient_attention_xformers")
_VARIABLE = "DIFFUSERS_ATTN_BACKEND"


class AttentionBackend(LinesTechnique):
    name = "attention_backend"
    summary = "Choose the attention kernel (flash, sage, xformers ...): mostly speed; memory where math would be used."
    docs = "https://huggingface.co/docs/diffusers/optimization/attention_backends"
    tags = ("attention", "speed")
    phase = Phase.ATTENTION
    quality = Quality.EQUIVALENT
    conflicts = ("attention_slicing", "sdpa_kernel")
    words = "any"
    explains = {
        "native": "PyTorch's own choice.",
        "flash": "FlashAttention 2, package flash-attn.",
        "flash_hub": "FlashAttention 2 from the Hub, package kernels.",
        "_flash_3_hub": "FlashAttention 3 from the Hub, for Hopper.",
        "sage": "SageAttention, 8 bits inside; package sageattention.",
        "sage_hub": "The same from the Hub, package kernels.",
        "xformers": "xFormers; the only one that acts on U-Nets.",
        "_native_flash": "PyTorch's flash kernel and no other.",
        "_native_efficient": "PyTorch's memory-efficient kernel.",
        "_native_cudnn": "cuDNN's kernel; mostly for Hopper and Blackwell.",
    }
    settles = False
    verbs = ("set_attention_backend", *_XFORMERS)
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
            return "it has no effect on a U-Net; only xformers has, and sdpa_kernel(efficient) around the call."
        if context.older("diffusers", "0.35") and backend != "xformers":
            return "it needs diffusers 0.35 or newer (pip install -U diffusers)."
        package = _PACKAGES[backend]
        if package is not None and context.missing(package):
            return f"it needs the package {package}, which is not installed (pip install {package})."
        if package == "kernels" and context.older("kernels", "0.12"):
            return "it needs kernels 0.12 or newer (pip install -U kernels)."
        return _no_kernel(context, backend)

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

    def read(self, context: Context) -> Application | None:
        found = self.found(context.use)
        backend: object = None
        if found:
            backend = "xformers" if found[0].verb in _XFORMERS else found[0].argument("0", found[0].argument("backend"))
        for call in context.use.calls:
            if call.attention and call.attention[0].startswith(BACKEND):
                backend = call.attention[0].removeprefix(BACKEND)
        variable = context.script.environment.get(_VARIABLE)
        backend = variable.value if backend is None and variable is not None else backend
        return Application(technique=self.name, components=(backend,)) if isinstance(backend, str) else None

    def remove(self, draft: Draft) -> None:
        super().remove(draft)
        reason = self.why_gone(draft)
        take_out(draft, ("attention_backend",), reason)
        variable = draft.script.environment.get(_VARIABLE)
        statement = draft.tree.statement(variable.span) if variable is not None and variable.span is not None else None
        if statement is not None:
            draft.remove_statement(statement, reason)

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
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
pipe.enable_xformers_memory_efficient_attention()
image = pipe("a cat").images[0]
""",
            "attention_backend(xformers)",
            why="the one backend that a U-Net knows",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline, attention_backend

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
with attention_backend("flash"):
    image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
pipe.transformer.set_attention_backend("sage_hub")
image = pipe("a cat").images[0]
""",
            "attention_backend(sage_hub)",
            why="the block that chose another one goes",
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


def _no_kernel(context: Context, backend: str) -> str | None:
    """Why the card or the dtype has no such kernel."""
    card = context.target.card if context.target is not None else None
    least = _SINCE.get(backend, (5, 0) if backend in _ANY_CARD else (8, 0))
    if card is not None and card.compute_capability is not None and card.compute_capability < least:
        return f"there is no such kernel for {card.label}; it begins with compute capability {least[0]}.{least[1]}."
    if backend not in _ANY_CARD and any(context.compute_dtype(n) == "float32" for n in context.denoisers):
        return "its kernels compute in 16 bits, and the script loads float32."
    return None
