"""Calls that the libraries renamed or removed, brought up to date.

What raises today is repaired by every rewrite on the way; what only warns is changed when this is asked for by name.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique, Use
from oomdoctor.techniques.effects import Effect
from oomdoctor.values import Application, Known, Loaded, Measurement, Quality, Span

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_MOVED_TO_VAE = {
    "enable_vae_tiling": "enable_tiling", "disable_vae_tiling": "disable_tiling",
    "enable_vae_slicing": "enable_slicing", "disable_vae_slicing": "disable_slicing",
}  # fmt: skip
_MOVED_REPOS = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
                "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting"}  # fmt: skip
_BACKENDS = {
    "torch_sdpa": "native", "flash_attention_2": "flash", "flex_attention": "flex", "sage_attention": "sage",
}  # fmt: skip
_GONE = {
    "trace": "Line {line}: torch.jit.trace is no longer developed; leave it out, or use compile.",
}


class ModernApi(Technique):
    name = "modern_api"
    summary = "Bring renamed and removed calls up to date; nothing else changes."
    docs = "https://huggingface.co/docs/diffusers/main/en/api/pipelines/overview"
    tags = ("loading",)
    phase = Phase.LOAD
    quality = Quality.IDENTICAL
    settles = False

    def options(self, context: Context) -> tuple[Application, ...]:
        return ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.older("diffusers", "0.35"):
            return "the installed diffusers is older than the names it would write (pip install -U diffusers)."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return ()

    def always(self, draft: Draft) -> None:
        for use in self.found(draft.use):
            if use.verb in _MOVED_TO_VAE and not use.owner:
                draft.rename_method(
                    use.found.span, use.verb, f"vae.{_MOVED_TO_VAE[use.verb]}",
                    f"{use.verb} of the pipeline was removed; the VAE itself has the method.",
                )  # fmt: skip
            elif use.verb == "compile" and use.argument("mode") == "ax-autotune":
                known = use.found.arguments["mode"]
                if known.span is not None:
                    draft.replace(known.span, draft.quote("max-autotune"), "ax-autotune is no mode; this is meant.")
            elif use.verb in _GONE and not _untraced(draft, use):
                draft.by_hand(_GONE[use.verb].format(line=use.found.span.line))
            elif use.verb == "set_attention_backend":
                _rename_backend(draft, use)
            elif use.verb == "set_attn_processor" and _of_unets(draft.context, use):
                draft.remove_optimisation(
                    use.found,
                    "This processor is for U-Nets; the model brings its own, which use fused attention already.",
                )
        _own_method(draft)

    def write(self, draft: Draft, application: Application) -> None:
        new_name = not draft.context.older("diffusers", "0.40") and draft.context.version("diffusers") is not None
        for loaded, arguments, model in _loads(draft.context):
            if new_name and "torch_dtype" in arguments and "dtype" not in arguments:
                self._rename(draft, arguments["torch_dtype"], "torch_dtype", "dtype", "torch_dtype is deprecated.")
            revision = arguments.get("revision")
            if revision is not None and revision.value == "fp16" and "variant" not in arguments:
                self._rename(draft, revision, "revision", "variant", "Half-precision files are a variant now.")
            if isinstance(model.value, str) and model.value in _MOVED_REPOS and model.span is not None:
                if model.certainty == "literal":
                    draft.replace(model.span, draft.quote(_MOVED_REPOS[model.value]), "The repository has moved.")
                else:
                    line = loaded.span.line if loaded is not None and loaded.span else draft.use.load_span.line
                    draft.by_hand(f"Line {line}: {model.value} has moved to {_MOVED_REPOS[model.value]}.")

    @staticmethod
    def _rename(draft: Draft, known: Known, old: str, new: str, reason: str) -> None:
        if known.keyword is None:
            return
        start = known.keyword
        name = Span(line=start.line, column=start.column, end_line=start.line, end_column=start.column + len(old))
        draft.replace(name, new, reason)

    def owns(self, use: Use) -> bool:
        return use.verb in (*_MOVED_TO_VAE, *_GONE, "compile", "set_attention_backend", "set_attn_processor")

    def read(self, context: Context) -> Application | None:
        return None

    def remove(self, draft: Draft) -> None:
        """Old names do not come back."""

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.enable_vae_slicing()
pipe.to("cuda")
images = pipe("a cat", num_images_per_prompt=4).images
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", dtype=torch.float16)
pipe.vae.enable_slicing()
pipe.to("cuda")
images = pipe("a cat", num_images_per_prompt=4).images
""",
            "modern_api+vae_slicing",
            versions=(("diffusers", "0.42.1"),),
        ),
        Changes(
            """\
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("runwayml/stable-diffusion-v1-5", revision="fp16", torch_dtype=torch.float16)
pipe = pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", variant="fp16", torch_dtype=torch.float16)
pipe = pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            "modern_api",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline, set_attention_backend

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
set_attention_backend("flash_attention_2")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
pipe.transformer.set_attention_backend("flash")
image = pipe("a cat").images[0]
""",
            "modern_api",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("runwayml/stable-diffusion-v1-5", torch_dtype=torch.float16)
image = pipe("a cat").images[0]
""",
            "modern_api",
            "older than the names",
            versions=(("diffusers", "0.20.0"),),
        ),
    )


def _untraced(draft: Draft, use: Use) -> bool:
    """``pipe.unet = torch.jit.trace(pipe.unet, ...)`` goes: the model is what it was before."""
    node, statement = draft.tree.call(use.found.span), draft.tree.statement(use.found.statement or use.found.span)
    if node is None or not node.args or not isinstance(statement, ast.Assign) or statement.value is not node:
        return False
    if [ast.unparse(t) for t in statement.targets] != [ast.unparse(node.args[0])]:
        return False
    draft.remove_statement(statement, "torch.jit.trace is no longer developed, and a traced model takes no hooks.")
    return True


def _of_unets(context: Context, use: Use) -> bool:
    """``pipe.transformer.set_attn_processor(AttnProcessor2_0())``: taken, and then an error in most models' forward."""
    given = use.argument("0", use.argument("processor"))
    name = given.get("class") if isinstance(given, dict) else None
    return name in ("AttnProcessor", "AttnProcessor2_0") and use.owner in context.denoisers and use.owner != "unet"


def _rename_backend(draft: Draft, use: Use) -> None:
    """Names of attention kernels that guides mention and the library never had."""
    known = use.found.arguments.get("0") or use.found.arguments.get("backend")
    if known is not None and known.value in _BACKENDS and known.span is not None and known.certainty == "literal":
        new = _BACKENDS[known.value]
        draft.replace(known.span, draft.quote(new), f"The library calls this kernel {new!r}.")


def _own_method(draft: Draft) -> None:
    """``set_attention_backend(x)``, which diffusers does not offer to import, is a method of the model."""
    names = [n for n, q in draft.script.imports.items() if q == "diffusers.set_attention_backend"]
    if not names:
        return
    models, done = draft.context.denoisers, False
    for node in list(draft.tree.nodes(ast.Call)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in names:
            continue
        if len(models) == 1 and draft.load is not None and node.lineno > draft.load.lineno:
            reason = "diffusers has no set_attention_backend to import; the model has the method."
            draft.edit(*draft.text.node(node.func), f"{draft.component(models[0])}.set_attention_backend", reason)
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and first.value in _BACKENDS:
                new = _BACKENDS[first.value]
                draft.edit(*draft.text.node(first), draft.quote(new), f"The library calls this kernel {new!r}.")
            done = True
    if not done:
        model = draft.component(models[0] if models else "transformer")
        draft.by_hand(
            f"diffusers has no set_attention_backend to import: call `{model}.set_attention_backend(...)` instead."
        )


def _loads(context: Context) -> list[tuple[Loaded | None, dict[str, Known], Known]]:
    places: list[tuple[Loaded | None, dict[str, Known], Known]] = [
        (None, context.use.load_arguments, context.use.model)
    ]
    return places + [(c, c.arguments, c.model) for c in context.use.components if c.span is not None]
