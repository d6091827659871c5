"""The allocator grows its segments instead of taking new ones: cures fragmentation, and only that.

For errors where PyTorch holds much memory that it does not use ("reserved but unallocated"). Must be set before torch
starts.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.effects import AllocatorSetting, Effect
from oomdoctor.values import Application, Kind, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
_SETTING = "expandable_segments:True"


class ExpandableSegments(Technique):
    name = "expandable_segments"
    summary = "Let the allocator grow its segments: less lost to fragmentation; no help when memory is simply full."
    docs = "https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf"
    tags = ("allocator",)
    phase = Phase.ENVIRONMENT
    quality = Quality.IDENTICAL
    settles = False

    def options(self, context: Context) -> tuple[Application, ...]:
        """Only where fragmentation is what the error message shows: elsewhere it saves little and must not stand in the
        way of what helps. What a script sets itself is left in it anyway."""
        fragmented = context.diagnosis is not None and context.diagnosis.kind is Kind.FRAGMENTATION
        return super().options(context) if fragmented else ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        for name in _VARIABLES:
            setting = context.script.allocator_settings.get(name, "")
            if "backend:cudaMallocAsync" in setting:
                return "the script uses the allocator of CUDA itself, which has no such segments."
            if "expandable_segments:False" in setting:
                return "the script switches it off on purpose."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (AllocatorSetting("expandable_segments", "True"),)

    def write(self, draft: Draft, application: Application) -> None:
        reason = "Lets PyTorch grow its memory segments, so that less is lost in gaps."
        for name in _VARIABLES:
            setting = draft.script.allocator_settings.get(name)
            if setting:
                known = draft.script.environment[name]
                if known.span is None or known.certainty != "literal":
                    draft.by_hand(f"Line {known.line}: add `,{_SETTING}` to the value of {name}.")
                    return
                draft.replace(known.span, draft.quote(f"{setting},{_SETTING}"), reason)
                return
        line = f"os.environ[{draft.quote(_VARIABLES[0])}] = {draft.quote(_SETTING)}  # before torch is imported"
        draft.before_imports([line], "os", reason)

    def read(self, context: Context) -> Application | None:
        settings = context.script.allocator_settings
        return Application(technique=self.name) if any(_SETTING in settings.get(n, "") for n in _VARIABLES) else None

    def remove(self, draft: Draft) -> None:
        for name in _VARIABLES:
            setting, known = draft.script.allocator_settings.get(name, ""), draft.script.environment.get(name)
            if _SETTING not in setting or known is None or known.span is None:
                continue
            rest = ",".join(part for part in setting.split(",") if part.strip() != _SETTING)
            if rest:
                draft.replace(known.span, draft.quote(rest), "Takes out expandable_segments.")
                continue
            statement = draft.tree.statement(known.span)
            if isinstance(statement, ast.Assign | ast.Expr):
                draft.remove_statement(statement, "Takes out expandable_segments.")

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import os
os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"  # before torch is imported
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "expandable_segments",
        ),
        Changes(
            """\
import os

os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "max_split_size_mb:512"
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import os

os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "max_split_size_mb:512,expandable_segments:True"
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "expandable_segments",
        ),
        Refusal(
            """\
import os
os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "backend:cudaMallocAsync"
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "expandable_segments",
            "allocator of CUDA itself",
        ),
    )
