"""Loading that never holds the weights twice in RAM: mapped safetensors files, one shard after the other.

The libraries do so by default, so this takes out what switches it off.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.effects import Effect, LoadOnce
from oomdoctor.values import Application, Known, Loaded, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_WASTEFUL = {"low_cpu_mem_usage": False, "use_safetensors": False, "disable_mmap": True, "offload_state_dict": False}
_PARALLEL = "HF_ENABLE_PARALLEL_LOADING"


class LowRamLoading(Technique):
    name = "low_ram_loading"
    summary = "Load weights through mapped files, shard by shard, so RAM never holds them twice."
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#sharded-checkpoints"
    tags = ("loading",)
    phase = Phase.LOAD
    quality = Quality.IDENTICAL
    settles = False

    def options(self, context: Context) -> tuple[Application, ...]:
        return (Application(technique=self.name),) if _wasteful(context) else ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.use.loader not in ("from_pretrained", "from_single_file") and not context.use.components:
            return "nothing is loaded from files in this script."
        if context.missing("accelerate"):
            return "it needs the package accelerate, which is not installed (pip install accelerate)."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (LoadOnce(),)

    def write(self, draft: Draft, application: Application) -> None:
        for loaded, name in _wasteful(draft.context):
            draft.remove_load_argument(name, f"Drops {name}: the default loads with far less RAM.", loaded)
        known = draft.script.environment.get(_PARALLEL)
        if known is None or known.value in ("0", "", "false", "False"):
            return
        reason = f"Drops {_PARALLEL}: loading shards side by side needs more RAM."
        statement = draft.tree.statement(known.span) if known.span is not None else None
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]).startswith("os.environ["):
            draft.remove_statement(statement, reason)
        else:
            draft.by_hand(f"Line {known.line}: delete the setting of {_PARALLEL}; shards side by side need more RAM.")

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0",
    torch_dtype=torch.float16,
    low_cpu_mem_usage=False,
)
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0",
    torch_dtype=torch.float16,
)
image = pipe("a cat").images[0]
""",
            "low_ram_loading",
        ),
        Changes(
            """\
import os
import torch
from diffusers import FluxPipeline

os.environ["HF_ENABLE_PARALLEL_LOADING"] = "yes"
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
image = pipe("a cat").images[0]
""",
            "low_ram_loading",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", low_cpu_mem_usage=False)
image = pipe("a cat").images[0]
""",
            "low_ram_loading",
            "accelerate",
            versions=(("accelerate", ""),),
        ),
    )


def _wasteful(context: Context) -> list[tuple[Loaded | None, str]]:
    """Arguments that make loading keep more in RAM than it has to: (component or None for the pipeline, name)."""
    places: list[tuple[Loaded | None, dict[str, Known]]] = [(None, context.use.load_arguments)]
    places += [(c, c.arguments) for c in context.use.components if c.span is not None]
    return [
        (loaded, name)
        for loaded, written in places
        for name, value in _WASTEFUL.items()
        if name in written and written[name].value is value
    ]
