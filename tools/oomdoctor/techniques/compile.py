"""torch.compile: faster steps after a slow first call. It saves time, not memory (a little more is needed at first).

``regional`` compiles one block class and reuses it: a fraction of the waiting for nearly the same gain. ``fullgraph``
cannot hold with group offloading or layerwise casting, whose hooks break the graph on purpose.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Use
from oomdoctor.techniques.effects import Effect, SpeedFactor
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.techniques.uses import uses_of
from oomdoctor.values import Application, Measurement, Optimisation, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_WORDS = {"compile": "full", "compile_repeated_blocks": "regional", "compile_regions": "regions"}
_TUNED = {
    "conv_1x1_as_mm": True,
    "coordinate_descent_tuning": True,
    "coordinate_descent_check_all_directions": True,
    "epilogue_fusion": False,
}
_DUCK = "experimental._config.use_duck_shape"
MODES = ("default", "lite", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_SOURCE = (
    "PyTorch blog, torch.compile and Diffusers: FLUX.1-dev on an H100, 6.7 s to 4.5 s; cold start 67.4 s and 9.6 s"
)


class Compile(LinesTechnique):
    name = "compile"
    summary = "Compile the model that runs the steps: faster after a slow first call; no memory is saved."
    docs = "https://huggingface.co/docs/diffusers/optimization/fp16#torchcompile"
    tags = ("compile", "speed")
    phase = Phase.COMPILE
    quality = Quality.EQUIVALENT
    conflicts = ("sequential_offload",)
    words = ("regional", "full", "regions")
    keys = {"mode": (str,), "dynamic": (bool,), "tuned": (bool,)}
    explains = {
        "regional": "One block class, compiled once and reused: a short wait.",
        "full": "The whole model: a long wait, slightly faster.",
        "regions": "Blocks that accelerate finds, for models that name none; the rest is compiled as well.",
        "tuned": "Inductor settings that search longer for faster kernels.",
        "mode": "A mode of torch.compile, such as max-autotune.",
        "dynamic": "For sizes that differ from call to call.",
    }
    settles = False
    verbs = ("compile", "compile_repeated_blocks", "compile_regions")
    reason = "Compiles the part that runs at every step: the first call is slow, the following ones are faster."

    def options(self, context: Context) -> tuple[Application, ...]:
        plain = Application(technique=self.name, components=("regional",))
        return (plain,) if self.applies_to(context, plain) is None else ()

    def resolve(self, application: Application, context: Context) -> Application:
        options = tuple((k, v) for k, v in application.options if v is not False)
        return application.model_copy(
            update={"components": application.components or ("regional",), "options": options}
        )

    def applies_to(self, context: Context, application: Application) -> str | None:
        mode = application.option("mode", "default")
        if mode not in MODES:
            return f"{mode!r} is not a mode of torch.compile; there are {', '.join(MODES)}."
        if not context.denoisers:
            return "the script does not tell which model runs the steps."
        for name in context.denoisers:
            facts = context.model(name)
            if application.components == ("regional",) and facts is not None and not facts.repeated_blocks:
                return f"{context.class_of(name)} names no repeated blocks; use compile(full) or compile(regions)."
        if application.components == ("regions",):
            offload = next((a.technique for a in context.strategy.applications if "offload" in a.technique), None)
            if offload is not None:
                return f"accelerate compiles a copy of the model, which would miss the hooks of {offload}."
            if context.older("accelerate", "1.7"):
                return "it needs accelerate 1.7 or newer (pip install -U accelerate)."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        first = 9.6 if application.components == ("regional",) else 67.4
        return (SpeedFactor(0.67, low=0.6, high=1.0, first_call_seconds=first, source=_SOURCE),)

    def lines(self, draft: Draft, application: Application) -> list[str]:
        mode, dynamic = application.option("mode", ""), application.option("dynamic", False)
        arguments = [f"mode={draft.quote(str(mode))}"] if mode else []
        if not breaks_graph(draft.context):
            arguments.append("fullgraph=True")
        lines = []
        if application.option("tuned", False):
            inductor = draft.name("torch._inductor") + ".config"
            lines += [f"{inductor}.{name} = {value}" for name, value in _TUNED.items()]
        if dynamic:
            arguments.append("dynamic=True")
            lines.append(f"{draft.name('torch.fx')}.{_DUCK} = False  # sizes vary one by one")
        _return_tuples(draft, "fullgraph=True" in arguments)
        for name in draft.context.denoisers:
            model = draft.component(name)
            if application.components == ("regions",):
                function = draft.name("accelerate.utils.compile_regions")
                lines.append(f"{model} = {function}({', '.join([model, *arguments])})")
                continue
            method = "compile_repeated_blocks" if application.components == ("regional",) else "compile"
            lines.append(f"{model}.{method}({', '.join(arguments)})")
        return lines

    def remove(self, draft: Draft) -> None:
        super().remove(draft)
        names = (_DUCK, *(f"_inductor.config.{name}" for name in _TUNED))
        for statement in list(draft.tree.statements()):
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]).endswith(names):
                draft.remove_statement(statement, "Takes out a setting of the compiler that is of no use without it.")

    def kept_phase(self, use: Use) -> int:
        """``x = torch.compile(x, ...)`` wraps the model (and accelerate's function copies it): both come before the hooks
        of offloading, which the one cannot cross and the other would lose."""
        wraps = use.found.method == "torch.compile" or use.verb == "compile_regions"
        return int(Phase.OFFLOAD) - 1 if wraps else int(self.phase)

    def tidy(self, draft: Draft, application: Application) -> None:
        _drop_fullgraph(self.found(draft.use), draft)

    def always(self, draft: Draft) -> None:
        if draft.context.planned(self.name) is None:
            _drop_fullgraph(self.found(draft.use), draft)

    def read(self, context: Context) -> Application | None:
        ours = ("",) if context.use.kind == "model" else context.denoisers
        found = [u for u in self.found(context.use) if u.owner.split(".")[0] in ours]
        if not found:
            return None
        first = found[0]
        word = _WORDS[first.verb]
        options: dict[str, Any] = {}
        if isinstance(first.argument("mode"), str):
            options["mode"] = first.argument("mode")
        if first.argument("dynamic") is True:
            options["dynamic"] = True
        if any(s.method.endswith("coordinate_descent_tuning") for s in _settings(context)):
            options["tuned"] = True
        return Application(technique=self.name, components=(word,), options=tuple(options.items()))

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()
pipe.transformer.compile_repeated_blocks(fullgraph=True)
image = pipe("a cat").images[0]
""",
            "model_offload+compile(regional)",
        ),
        Changes(
            """\
import torch
from diffusers import StableDiffusion3Pipeline

pipe = StableDiffusion3Pipeline.from_pretrained("stabilityai/stable-diffusion-3-medium-diffusers", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat", height=768, width=1024).images[0]
""",
            """\
import torch
from diffusers import StableDiffusion3Pipeline
from accelerate.utils import compile_regions

pipe = StableDiffusion3Pipeline.from_pretrained("stabilityai/stable-diffusion-3-medium-diffusers", torch_dtype=torch.float16)
pipe.to("cuda")
torch.fx.experimental._config.use_duck_shape = False  # sizes vary one by one
pipe.transformer = compile_regions(pipe.transformer, fullgraph=True, dynamic=True)
image = pipe("a cat", height=768, width=1024).images[0]
""",
            "compile(regions, dynamic=true)",
            why="a model that names no repeated blocks, and sizes that vary",
        ),
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
noise = pipe.unet(latents, 999, encoder_hidden_states=embeds).sample
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
pipe.unet.compile(mode="max-autotune", fullgraph=True)
noise = pipe.unet(latents, 999, encoder_hidden_states=embeds, return_dict=False)[0]
""",
            "compile(full, mode=max-autotune)",
            why="a full graph returns a tuple",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
pipe.transformer.compile_repeated_blocks(fullgraph=True)
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)
pipe.transformer.compile_repeated_blocks()
image = pipe("a cat").images[0]
""",
            "group_offload(leaf, stream=true)",
            why="the user's compiling stays, fullgraph cannot",
        ),
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
pipe.unet = torch.compile(pipe.unet, mode="max-autotune", fullgraph=True)
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.unet = torch.compile(pipe.unet, mode="max-autotune", fullgraph=True)
pipe.enable_model_cpu_offload()
image = pipe("a cat").images[0]
""",
            "model_offload",
            why="a model that is wrapped as a whole is compiled before the hooks come",
        ),
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()
pipe.transformer = torch.compile(pipe.transformer, fullgraph=True)
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()
pipe.transformer = torch.compile(pipe.transformer)
pipe.vae.enable_tiling()
pipe.vae.tile_sample_min_size = 512  # by default it tiles only above its native size
pipe.vae.tile_latent_min_size = 64
image = pipe("a cat").images[0]
""",
            "model_offload+vae_tiling",
            why="below the offload call a full graph would be an error",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusion3Pipeline

pipe = StableDiffusion3Pipeline.from_pretrained("stabilityai/stable-diffusion-3-medium-diffusers", torch_dtype=torch.float16)
image = pipe("a cat").images[0]
""",
            "compile(regional)",
            "no repeated blocks",
        ),
    )


def breaks_graph(context: Context) -> bool:
    """The strategy has hooks in it that a full graph cannot cross."""
    return any(context.planned(n) is not None for n in ("group_offload", "fp8_casting"))


def _after_offload(use: Use, draft: Draft) -> bool:
    """The model is wrapped below a call of ``enable_model_cpu_offload`` that stays."""
    offloads = [u for u in uses_of(draft.use) if u.verb == "enable_model_cpu_offload"]
    stays = draft.context.planned("model_offload") is not None
    return use.found.method == "torch.compile" and stays and any(o.found.order < use.found.order for o in offloads)


def _settings(context: Context) -> list[Optimisation]:
    """Process-wide settings of the compiler that this technique writes."""
    names = {f"torch._inductor.config.{name}" for name in _TUNED}
    return [s for s in context.script.settings if s.method in names]


def _return_tuples(draft: Draft, fullgraph: bool) -> None:
    """``unet(...).sample`` of a loop of one's own: a full graph is left with a plain tuple."""
    own = draft.use.calls if draft.use.kind == "model" else draft.use.part_calls
    for call in own if fullgraph else ():
        node = draft.tree.call(call.span)
        part = call.pipeline.rpartition(".")[2] in draft.context.denoisers
        if node is None or not (part or draft.use.kind == "model"):
            continue
        outer = draft.tree.parents.get(node)
        if isinstance(outer, ast.Attribute) and outer.attr == "sample":
            reason = "Takes the result as a plain tuple, which a fully compiled model returns without a break."
            draft.set_keyword(node, "return_dict", "False", reason)
            draft.edit(draft.text.node(node)[1], draft.text.node(outer)[1], "[0]", reason)


def _drop_fullgraph(found: tuple[Use, ...], draft: Draft) -> None:
    hooked = breaks_graph(draft.context)
    for use in found:
        if use.argument("fullgraph") is True and (hooked or _after_offload(use, draft)):
            reason = (
                "Drops fullgraph=True: the hooks of offloading and casting break the graph, which would be an error."
            )
            draft.remove_argument_at(use.found.span, "fullgraph", reason)
