"""What keeps PyTorch's fused attention from being used is taken out: it costs memory, and nothing else is gained.

Scripts from the time before PyTorch 2 set ``AttnProcessor()`` by hand, call ``set_default_attn_processor()`` (which sets
the same), switch kernels off process-wide, or run in a block that allows the math kernel only. Each builds the whole
attention matrix: gigabytes at 1024 pixels, where the fused kernels need next to nothing. Any strategy takes these out;
by itself, this does nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique, Use
from oomdoctor.techniques.effects import Attention, Effect, Place
from oomdoctor.techniques.sdpa_kernel import take_out
from oomdoctor.values import Application, Measurement, Optimisation, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_OLD = ("AttnProcessor", "AttnAddedKVProcessor", "SlicedAttnProcessor", "SlicedAttnAddedKVProcessor",
        "CrossAttnProcessor", "AttentionProcessor")  # fmt: skip
"""Processors that build the attention matrix (or slices of it) themselves."""
_SWITCHES = ("enable_flash_sdp", "enable_mem_efficient_sdp", "enable_cudnn_sdp")
_MATH = ("math", "_native_math", "native_math")


class FusedAttention(Technique):
    name = "fused_attention"
    summary = "Take out old attention processors and switches that keep PyTorch from its fused kernels: less memory."
    docs = "https://huggingface.co/docs/diffusers/optimization/fp16#scaled-dot-product-attention"
    tags = ("attention",)
    phase = Phase.ATTENTION
    quality = Quality.EQUIVALENT
    conflicts = ("attention_slicing",)
    settles = False
    restores = True

    def options(self, context: Context) -> tuple[Application, ...]:
        return (Application(technique=self.name),) if _in_the_way(context) else ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.older("torch", "2.0"):
            return "PyTorch has fused attention from version 2.0 on (pip install -U torch)."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        # Measured is the script without them and with everything on the card, which is what this leaves.
        return (Attention("native"), Place("*", "resident"))

    def write(self, draft: Draft, application: Application) -> None:
        """Whatever is in the way goes with any rewrite."""

    def always(self, draft: Draft) -> None:
        if draft.context.older("torch", "2.0"):
            return
        reason = "Takes out {}: without it PyTorch uses its fused attention, which needs far less memory."
        for use in self.found(draft.use):
            draft.remove_optimisation(
                use.found, reason.format(f"{use.verb}()" if use.verb[0] != "_" else "the processor")
            )
        for setting in draft.script.settings:
            if _switches_off(setting):
                draft.remove_optimisation(setting, reason.format("the switch"))
        if _in_the_way(draft.context):
            draft.warn("Fused attention rounds in another order: pictures differ from before, invisibly.")
        if any(call.attention == ("math",) for call in draft.use.calls):
            take_out(draft, ("sdpa_kernel", "sdp_kernel"), reason.format("the math kernel"))

    def owns(self, use: Use) -> bool:
        if use.verb == "set_default_attn_processor":
            return True
        given = use.argument("0", use.argument("processor", use.argument("backend")))
        if use.verb == "set_attn_processor":
            return isinstance(given, dict) and given.get("class") in _OLD
        return use.verb == "set_attention_backend" and given in _MATH

    def read(self, context: Context) -> Application | None:
        return None

    def remove(self, draft: Draft) -> None:
        """Nobody wants them back."""

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
pipe.unet.set_attn_processor(AttnProcessor())
pipe.vae.set_default_attn_processor()
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "fused_attention",
        ),
        Changes(
            """\
import torch
from diffusers import StableDiffusionPipeline
from torch.nn.attention import SDPBackend, sdpa_kernel

torch.backends.cuda.enable_flash_sdp(False)
pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
pipe.to("cuda")
with sdpa_kernel(SDPBackend.MATH):
    image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
pipe.enable_model_cpu_offload()
image = pipe("a cat").images[0]
""",
            "model_offload",
            why="any strategy takes them out: its figures count on fused attention",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
image = pipe("a cat").images[0]
""",
            "fused_attention",
            "from version 2.0 on",
            versions=(("torch", "1.13.1"),),
        ),
    )


def _in_the_way(context: Context) -> bool:
    """The script has something that this would take out."""
    found = FusedAttention().found(context.use)
    blocks = any(call.attention == ("math",) for call in context.use.calls)
    return bool(found) or blocks or any(_switches_off(s) for s in context.script.settings)


def _switches_off(setting: Optimisation) -> bool:
    name, given = setting.method.rpartition(".")[2], setting.arguments.get("0", setting.arguments.get("enabled"))
    return name in _SWITCHES and given is not None and given.value is False
