"""torch.compile: faster steps after a slow first call. It saves time, not memory (a little more is needed at first).

``regional`` compiles one block class and reuses it: a fraction of the waiting for nearly the same gain. ``fullgraph``
cannot hold with group offloading or layerwise casting, whose hooks break the graph on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Use
from oomdoctor.techniques.effects import Effect, SpeedFactor
from oomdoctor.techniques.lines import LinesTechnique
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

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
    words = ("regional", "full")
    keys = {"mode": (str,), "dynamic": (bool,)}
    explains = {
        "regional": "One block class, compiled once and reused: a short wait.",
        "full": "The whole model: a long wait, slightly faster.",
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
                return f"{context.class_of(name)} names no repeated blocks; use compile(full)."
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
        if dynamic:
            arguments.append("dynamic=True")
            lines.append(
                f"{draft.name('torch.fx')}.experimental._config.use_duck_shape = False  # sizes vary one by one"
            )
        method = "compile_repeated_blocks" if application.components == ("regional",) else "compile"
        written = ", ".join(arguments)
        return lines + [f"{draft.component(n)}.{method}({written})" for n in draft.context.denoisers]

    def tidy(self, draft: Draft, application: Application) -> None:
        _drop_fullgraph(self.found(draft.use), draft)

    def always(self, draft: Draft) -> None:
        if draft.context.planned(self.name) is None:
            _drop_fullgraph(self.found(draft.use), draft)

    def read(self, context: Context) -> Application | None:
        found = [u for u in self.found(context.use) if u.owner.split(".")[0] in context.denoisers]
        if not found:
            return None
        first = found[0]
        word = "regional" if first.verb != "compile" else "full"
        options: dict[str, Any] = {}
        if isinstance(first.argument("mode"), str):
            options["mode"] = first.argument("mode")
        if first.argument("dynamic") is True:
            options["dynamic"] = True
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


def _drop_fullgraph(found: tuple[Use, ...], draft: Draft) -> None:
    if not breaks_graph(draft.context):
        return
    for use in found:
        if use.argument("fullgraph") is True:
            reason = (
                "Drops fullgraph=True: the hooks of offloading and casting break the graph, which would be an error."
            )
            draft.remove_argument_at(use.found.span, "fullgraph", reason)
