"""A call for many pictures becomes a loop over fewer at a time; the results are joined.

With a generator on the CPU the starting noise is drawn in the same order, so the pictures stay what they were (for
schedulers that add no noise of their own). A generator on the card draws in another order: other pictures of the same
kind.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.effects import Effect, SplitBatch
from oomdoctor.values import Application, Call, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_HEAD, _INDENT = 20_000, 20_001
"""Ranks at the call's line: the loop begins below whatever other techniques write above the call."""
_COUNT = "num_images_per_prompt"
_PER_PICTURE = ("image", "mask_image", "control_image", "latents", "prompt_embeds", "negative_prompt")


class BatchSplit(Technique):
    name = "batch_split"
    summary = "Make the pictures of a large batch a few at a time; slower than all at once, same pictures."
    docs = "https://huggingface.co/docs/diffusers/using-diffusers/batched_inference"
    tags = ("batch", "smaller_job")
    phase = Phase.CALL
    quality = Quality.EQUIVALENT
    words = "any"
    explains = {
        "2": "How many pictures at a time, any number from 1.",
    }

    def options(self, context: Context) -> tuple[Application, ...]:
        found = []
        for size in (4, 2, 1):
            application = Application(technique=self.name, components=(str(size),))
            if self.applies_to(context, application) is None:
                found.append(application)
        return tuple(found)

    def applies_to(self, context: Context, application: Application) -> str | None:
        words = application.components
        if len(words) != 1 or not words[0].isdigit() or words[0] == "0":
            return "say how many pictures at a time, as in batch_split(2)."
        if self.read(context) is not None:
            return None
        if len(context.use.calls) != 1:
            return "there is more than one call of the pipeline, or none; split the one that is too large by hand."
        call = context.use.calls[0]
        total = call.arguments[_COUNT].value if _COUNT in call.arguments else 1
        if not isinstance(total, int):
            return f"{_COUNT} is decided at run time."
        if total <= int(words[0]):
            return f"one call makes {total} picture{'s' if total != 1 else ''} per prompt, which is not more than {words[0]}."
        if not isinstance(context.argument("prompt") or _first(call), str | None) or _is_list(call):
            return "the call takes a list of prompts; hand over fewer of them at a time."
        wrong = [n for n in _PER_PICTURE if n in call.arguments and isinstance(call.arguments[n].value, list)]
        if wrong:
            return f"{', '.join(wrong)} holds one entry per picture and would have to be split as well."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (SplitBatch(int(application.components[0])),)

    def write(self, draft: Draft, application: Application) -> None:
        call, size = draft.use.calls[0], int(application.components[0])
        total = int(call.arguments[_COUNT].value)
        counts = [size] * (total // size) + ([total % size] if total % size else [])
        statement, node = draft.tree.statement(call.span), draft.tree.call(call.span)
        if not _joins(statement, node) or not isinstance(statement, ast.Assign) or node is None:
            draft.by_hand(
                f"Line {call.span.line}: make the pictures in a loop, `for count in {tuple(counts)}:`, pass "
                f"`{_COUNT}=count` and join the results."
            )
            return
        text = draft.text
        start, end = text.node(statement)
        if any(
            "\n" in str(n.value)
            for n in ast.walk(statement)
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ):
            draft.by_hand(f"Line {call.span.line}: give the long prompt a name, so that the call can stand in a loop.")
            return
        reason = f"Makes {size} picture{'s' if size > 1 else ''} at a time instead of {total} at once."
        target = ast.unparse(statement.targets[0])
        indent, newline, unit = text.indent(start), text.newline, text.indent_unit
        head = [f"{target} = []", f"for count in {_tuple(counts)}:"]
        generator = next((k for k in node.keywords if k.arg == "generator"), None)
        if generator is not None and isinstance(generator.value, ast.Call):
            first, last = text.node(generator.value)
            head.insert(0, f"generator = {text.source[first:last]}")
            draft.edit(
                first,
                last,
                "generator",
                "The generator is made once, so that every part goes on where the last one stopped.",
            )
        if generator is not None and "cuda" in str(call.arguments["generator"].value):
            draft.warn("The generator draws on the card: after the first part the pictures are others than before.")
        at = text.line_start(start)
        draft.edit(at, at, newline.join(indent + row for row in head) + newline, reason, rank=_HEAD)
        for line in range(text.line_of(start), text.line_of(end) + 1):
            position = text.offset(line, 0)
            if text.source[position : text.line_end(position)].strip():
                draft.edit(position, position, unit, "", rank=_INDENT)
        draft.edit(text.node(statement.targets[0])[1], text.node(statement.value)[0], " += ", "")
        draft.set_call_argument(call, _COUNT, "count", reason)

    def read(self, context: Context) -> Application | None:
        """A loop over literal counts around the call, as this technique writes it."""
        for call in context.use.calls:
            count = call.arguments.get(_COUNT)
            if call.in_loop and count is not None and count.text == "count" and count.alternatives:
                return Application(technique=self.name, components=(str(max(count.alternatives)),))
            if call.in_loop and count is not None and count.text == "count" and isinstance(count.value, int):
                return Application(technique=self.name, components=(str(count.value),))
        return None

    def remove(self, draft: Draft) -> None:
        """The loop becomes one call again."""
        call = next(c for c in draft.use.calls if c.in_loop and _COUNT in c.arguments)
        statement = draft.tree.statement(call.span)
        loop = draft.tree.parents.get(statement) if statement is not None else None
        if not isinstance(statement, ast.AugAssign) or not isinstance(loop, ast.For) or len(loop.body) != 1:
            draft.by_hand(f"Line {call.span.line}: make one call of the loop around it again.")
            return
        text = draft.text
        counts = [e.value for e in getattr(loop.iter, "elts", []) if isinstance(e, ast.Constant)]
        body = draft.tree.body_of(loop)
        index = body.index(loop)
        reason = "One call makes all pictures again."
        before = body[index - 1] if index else None
        if isinstance(before, ast.Assign) and ast.unparse(before.value) == "[]":
            draft.remove_statement(before, reason)
        first, inner = text.node(loop)[0], text.node(statement)[0]
        outer = text.indent(first)
        draft.edit(text.line_start(first), text.line_start(inner), "", reason)
        extra = len(text.indent(inner)) - len(outer)
        for line in range(text.line_of(inner), text.line_of(text.node(statement)[1]) + 1):
            position = text.offset(line, 0)
            blank = len(text.source[position : text.line_end(position)]) - len(
                text.source[position : text.line_end(position)].lstrip(" \t")
            )
            draft.edit(position, position + min(extra, blank), "", "")
        draft.edit(text.node(statement.target)[1], text.node(statement.value)[0], " = ", "")
        draft.set_call_argument(call, _COUNT, str(sum(int(str(c)) for c in counts)), reason)

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
images = pipe(
    "a cat",
    num_images_per_prompt=7,
    generator=torch.Generator().manual_seed(0),
).images
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
generator = torch.Generator().manual_seed(0)
images = []
for count in (2, 2, 2, 1):
    images += pipe(
        "a cat",
        num_images_per_prompt=count,
        generator=generator,
    ).images
""",
            "batch_split(2)",
        ),
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
images = pipe("a cat", num_images_per_prompt=4).images
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
pipe.vae.enable_slicing()
images = []
for count in (2, 2):
    images += pipe("a cat", num_images_per_prompt=count).images
""",
            "vae_slicing+batch_split(2)",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
image = pipe("a cat").images[0]
""",
            "batch_split(2)",
            "not more than 2",
        ),
    )


def _first(call: Call) -> object:
    return call.positional[0].value if call.positional else None


def _is_list(call: Call) -> bool:
    prompt = call.arguments.get("prompt") or (call.positional[0] if call.positional else None)
    return prompt is not None and isinstance(prompt.value, list)


def _joins(statement: ast.stmt | None, call: ast.Call | None) -> bool:
    """``name = pipe(...).images``: a list that can be added up."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return False
    value = statement.value
    plain = isinstance(value, ast.Attribute) and value.attr == "images" and value.value is call
    return plain and isinstance(statement.targets[0], ast.Name | ast.Attribute)


def _tuple(counts: list[int]) -> str:
    return f"({counts[0]},)" if len(counts) == 1 else f"({', '.join(str(c) for c in counts)})"
