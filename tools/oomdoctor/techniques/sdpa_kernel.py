"""PyTorch's attention kernel, chosen around the call: U-Nets, transformers, text encoders and VAE all go by it.

By itself PyTorch takes the best kernel that the inputs allow, and the math kernel, which builds the whole attention
matrix, where none of the fused ones does. Naming kernels turns that silent fall into an error, and is the way to try
one on a U-Net, which does not know diffusers' attention backends. The memory-efficient kernel is always allowed beside
flash and cuDNN: they take no masks, which text encoders use.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, ClassVar

from oomdoctor.rewrite import blocks
from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.effects import Attention, Effect
from oomdoctor.values import Application, Measurement, Optimisation, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_ALLOWED = {
    "efficient": ("efficient",),
    "flash": ("flash", "efficient"),
    "cudnn": ("cudnn", "efficient"),
}
_MEMBERS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION"}
_PLAIN_HEADS = ("CLIP", "T5", "UMT5", "MT5", "Bert", "XLM", "Roberta", "ChatGLM", "Clap", "ParaCLIP")
"""Text encoders in which every head has keys and values of its own."""
_MANAGERS = ("sdpa_kernel", "sdp_kernel")


class SdpaKernel(Technique):
    name = "sdpa_kernel"
    summary = "Name PyTorch's attention kernel around the call, U-Nets included: an error instead of the math kernel."
    docs = "https://huggingface.co/docs/diffusers/optimization/fp16#scaled-dot-product-attention"
    tags = ("attention", "speed")
    phase = Phase.CALL
    quality = Quality.EQUIVALENT
    conflicts = ("attention_backend", "attention_slicing", "batch_split")
    words = tuple(_ALLOWED)
    explains = {
        "efficient": "The memory-efficient kernel: any card, masks too.",
        "flash": "FlashAttention, and the memory-efficient kernel where there are masks; cards from Ampere on.",
        "cudnn": "cuDNN's kernel, and the memory-efficient one where it cannot; mostly for Hopper and Blackwell.",
    }
    settles = False

    def options(self, context: Context) -> tuple[Application, ...]:
        # PyTorch chooses among the same kernels by itself.
        return ()

    def resolve(self, application: Application, context: Context) -> Application:
        return application.model_copy(update={"components": application.components or ("efficient",)})

    def applies_to(self, context: Context, application: Application) -> str | None:
        if len(application.components) != 1:
            return f"name one of {', '.join(_ALLOWED)}."
        word = application.components[0]
        if context.older("torch", "2.3"):
            return "torch.nn.attention.sdpa_kernel is there from PyTorch 2.3 on."
        if not context.use.calls:
            return "the script does not call the pipeline, and the kernel is chosen around the call."
        if word == "efficient":
            return _grouped(context)
        card = context.target.card if context.target is not None else None
        if card is not None and card.compute_capability is not None and card.compute_capability < (8, 0):
            return f"{card.label} is older than what the {word} kernel needs (Ampere)."
        if any(context.compute_dtype(n) == "float32" for n in context.denoisers):
            return f"the {word} kernel computes in 16 bits, and the script loads float32."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        word = application.components[0]
        return (Attention("efficient" if word == "efficient" else "flash"),)

    def write(self, draft: Draft, application: Application) -> None:
        word = application.components[0]
        members = [f"{draft.bare('torch.nn.attention.SDPBackend')}.{_MEMBERS[k]}" for k in _ALLOWED[word]]
        given = members[0] if len(members) == 1 else f"[{', '.join(members)}]"
        manager = f"{draft.bare('torch.nn.attention.sdpa_kernel')}({given})"
        reason = f"Lets attention run in the {word} kernel only, never in the one that builds the whole matrix."
        done: list[ast.stmt] = []
        for call in draft.use.calls:
            statement = draft.tree.statement(call.span)
            if statement is None or any(statement is s for s in done):
                continue
            done.append(statement)
            if not blocks.wrap(draft, statement, manager, reason):
                draft.by_hand(f"Line {call.span.line}: put the call into a block, `with {manager}:`.")

    def read(self, context: Context) -> Application | None:
        for call in context.use.calls:
            word = next((w for w, kernels in _ALLOWED.items() if call.attention == kernels), None)
            if word is not None:
                return Application(technique=self.name, components=(word,))
        return None

    def recognise(self, use: object) -> tuple[Optimisation, ...]:
        return ()

    def remove(self, draft: Draft) -> None:
        take_out(draft, _MANAGERS, self.why_gone(draft))

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat", num_inference_steps=30).images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline
from torch.nn.attention import SDPBackend, sdpa_kernel

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
    image = pipe("a cat", num_inference_steps=30).images[0]
""",
            "sdpa_kernel(efficient)",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline
from torch.nn.attention import SDPBackend, sdpa_kernel

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
with torch.inference_mode(), sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
    image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
pipe.transformer.set_attention_backend("_native_flash")
with torch.inference_mode():
    image = pipe("a cat").images[0]
""",
            "attention_backend(_native_flash)",
            why="one way to choose the kernel is enough",
        ),
        Refusal(
            """\
import torch
from diffusers import CogView4Pipeline

pipe = CogView4Pipeline.from_pretrained("zai-org/CogView4-6B", torch_dtype=torch.bfloat16)
image = pipe("a cat").images[0]
""",
            "sdpa_kernel(efficient)",
            "use sdpa_kernel(flash)",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "sdpa_kernel(flash)",
            "computes in 16 bits",
        ),
    )


def _grouped(context: Context) -> str | None:
    """Language models share keys and values among heads, which the memory-efficient kernel does not take."""
    for name in context.text_encoders:
        kind = context.class_of(name)
        if kind is not None and not kind.startswith(_PLAIN_HEADS):
            return f"{kind} ({name}) may have grouped heads, which this kernel does not take; use sdpa_kernel(flash)."
    return None


def take_out(draft: Draft, managers: tuple[str, ...], reason: str) -> None:
    """The script's ``with`` blocks that choose a kernel in one of those ways are opened."""
    for setting in draft.script.settings:
        if setting.method.rpartition(".")[2] not in managers or "kernels" not in setting.arguments:
            continue
        manager = draft.tree.call(setting.span)
        block = draft.tree.parents.get(draft.tree.parents[manager]) if manager is not None else None
        if isinstance(block, ast.With) and manager is not None:
            blocks.unwrap(draft, block, manager, reason)
