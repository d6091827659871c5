"""A call for many pictures becomes a loop over fewer at a time; the results are joined.

With a generator on the CPU the starting noise is drawn in the same order, so the pictures stay what they were (for
schedulers that add no noise of their own). A generator on the card draws in another order: other pictures of the same
kind. Both kinds of a batch are understood: many pictures of one prompt, and a list of prompts.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.batch_split import loops
from oomdoctor.techniques.batch_split.loops import COUNT, PER_PICTURE, SLICE
from oomdoctor.techniques.effects import Effect, SplitBatch
from oomdoctor.values import Application, Call, Known, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


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
        call, size = context.use.calls[0], int(words[0])
        return _not_a_batch(call, size) or _not_joined(call)

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (SplitBatch(int(application.components[0])),)

    def write(self, draft: Draft, application: Application) -> None:
        call, size = draft.use.calls[0], int(application.components[0])
        if self.read(draft.context) is not None and loops.resize(draft, call, size, f"Makes {size} at a time."):
            return
        place = loops.place_of(draft, call)
        if place is None:
            draft.by_hand(f"Line {call.span.line}: make {size} pictures at a time in a loop, and join the results.")
            return
        head = (
            self._of_prompts(draft, place, call, size) if _is_list(call) else self._of_copies(draft, place, call, size)
        )
        reason = f"Makes {size} picture{'s' if size > 1 else ''} at a time instead of all at once."
        loops.write_loop(draft, place, head, reason)

    @staticmethod
    def _of_copies(draft: Draft, place: loops.Place, call: Call, size: int) -> list[str]:
        """Many pictures of one prompt: ``for count in (2, 2)``."""
        counts = loops.counts_of(int(call.arguments[COUNT].value), size)
        draft.set_call_argument(call, COUNT, "count", "")
        return [*_hoisted_generator(draft, place, call), f"for count in {counts}:"]

    @staticmethod
    def _of_prompts(draft: Draft, place: loops.Place, call: Call, size: int) -> list[str]:
        """A list of prompts: ``for i in range(0, len(prompts), 2)``."""
        rows = _hoisted_generator(draft, place, call)
        listed = [k for k in place.call.keywords if k.arg in (*PER_PICTURE, "prompt") and _holds_list(call, k.arg)]
        values = (
            [*place.call.args[:1], *(k.value for k in listed)]
            if _prompt(call) in call.positional
            else [k.value for k in listed]
        )
        names = []
        for value in values:
            start, end = draft.text.node(value)
            if isinstance(value, ast.Name):
                names.append(value.id)
            else:
                names.append(loops.free_name(draft, "all_prompts"))
                rows.insert(0, f"{names[-1]} = {draft.text.source[start:end]}")
            draft.edit(start, end, f"{names[-1]}[i : i + {size}]", "")
        return [*rows, f"for i in {loops.steps_of(names[0], size)}:"]

    def read(self, context: Context) -> Application | None:
        """A loop over literal counts, or over portions of the prompts, around the call, as this technique writes it."""
        for call in context.use.calls:
            count, prompt = call.arguments.get(COUNT), _prompt(call)
            if call.in_loop and count is not None and count.text == "count" and count.alternatives:
                return Application(technique=self.name, components=(str(max(count.alternatives)),))
            if call.in_loop and count is not None and count.text == "count" and isinstance(count.value, int):
                return Application(technique=self.name, components=(str(count.value),))
            portion = SLICE.match(prompt.text or "") if prompt is not None else None
            if call.in_loop and portion is not None:
                return Application(technique=self.name, components=(portion.group(2),))
        return None

    def remove(self, draft: Draft) -> None:
        """The loop becomes one call again; where only its portions change, writing does that."""
        if draft.context.planned(self.name) is not None:
            return
        call = next(c for c in draft.use.calls if c.in_loop and (COUNT in c.arguments or _portion(c)))
        found = loops.loop_of(draft, call)
        if found is None:
            draft.by_hand(f"Line {call.span.line}: make one call of the loop around it again.")
            return
        reason = "One call makes all pictures again."
        loops.remove_loop(draft, found, reason)
        node = draft.tree.call(call.span)
        assert node is not None
        if COUNT in call.arguments:
            draft.set_call_argument(call, COUNT, str(loops.total_of(found)), "")
        for value in [*node.args, *(k.value for k in node.keywords)]:
            portion = loops.portion_of(value)
            back = portion is not None and portion.id == "all_prompts" and found.before is not None
            if portion is not None and found.before is not None and back:
                back = loops.inline(draft, found.before, portion, 2, reason)
            if portion is not None and not back:
                draft.edit(*draft.text.node(value), portion.id, "")
        generator = next((k.value for k in node.keywords if k.arg == "generator"), None)
        if found.before is not None and isinstance(generator, ast.Name) and generator.id == "generator":
            loops.inline(draft, found.before, generator, 1, reason)

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
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe(
    "a cat",
    num_images_per_prompt=4,
).images[0]
image.save("cat.png")
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
all_images = []
for count in (2, 2):
    all_images += pipe(
        "a cat",
        num_images_per_prompt=count,
    ).images
image = all_images[0]
image.save("cat.png")
""",
            "batch_split(2)",
            why="what is done with the pictures comes after the loop",
        ),
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
images = pipe(["a cat"] * 8, height=768).images
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
all_prompts = ["a cat"] * 8
images = []
for i in range(0, len(all_prompts), 4):
    images += pipe(all_prompts[i : i + 4], height=768).images
""",
            "batch_split(4)",
            why="a list of prompts",
        ),
        Refusal(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
result = pipe("a cat", num_images_per_prompt=4)
""",
            "batch_split(2)",
            "not taken as `.images`",
        ),
    )


def _prompt(call: Call) -> Known | None:
    return call.arguments.get("prompt") or (call.positional[0] if call.positional else None)


def _portion(call: Call) -> bool:
    prompt = _prompt(call)
    return prompt is not None and SLICE.match(prompt.text or "") is not None


def _is_list(call: Call) -> bool:
    prompt = _prompt(call)
    return prompt is not None and isinstance(prompt.value, list)


def _holds_list(call: Call, name: str | None) -> bool:
    known = call.arguments.get(name or "")
    return known is not None and isinstance(known.value, list)


def _not_a_batch(call: Call, size: int) -> str | None:
    """Why there is no batch, or none that is known; None for one that is larger than ``size``."""
    total, prompt = call.arguments[COUNT].value if COUNT in call.arguments else 1, _prompt(call)
    if not isinstance(total, int):
        return f"{COUNT} is decided at run time."
    if _is_list(call):
        assert prompt is not None
        if total != 1:
            return f"the call makes {total} pictures of each of several prompts; hand over fewer prompts at a time."
        if len(prompt.value) <= size:
            return f"one call makes {len(prompt.value)} pictures, which is not more than {size}."
        others = {n: call.arguments[n] for n in PER_PICTURE if _holds_list(call, n)}
        hidden = [n for n, known in others.items() if not (known.text or "").isidentifier()]
        if hidden:
            return f"{', '.join(hidden)} holds one entry per picture; give that list a name, so that it can be split as well."
        return None
    if prompt is not None and prompt.value is None and prompt.certainty == "unknown" and not prompt.text:
        return "the call names no prompt."
    if total <= size:
        return f"one call makes {total} picture{'s' if total != 1 else ''} per prompt, which is not more than {size}."
    wrong = [n for n in PER_PICTURE if _holds_list(call, n)]
    if wrong:
        return f"{', '.join(wrong)} holds one entry per picture and would have to be split as well."
    return None


def _not_joined(call: Call) -> str | None:
    if call.pictures:
        return None
    return "the result is not taken as `.images` in a line of its own, so that the portions could be joined."


def _hoisted_generator(draft: Draft, place: loops.Place, call: Call) -> list[str]:
    """The generator is made once, so that every part goes on where the last one stopped."""
    keyword = next((k for k in place.call.keywords if k.arg == "generator"), None)
    if keyword is None:
        return []
    if "cuda" in str(call.arguments["generator"].value):
        draft.warn("The generator draws on the card: after the first part the pictures are others than before.")
    if not isinstance(keyword.value, ast.Call):
        return []
    start, end = draft.text.node(keyword.value)
    draft.edit(
        start, end, "generator", "The generator is made once, so that every part goes on where the last one stopped."
    )
    return [f"generator = {draft.text.source[start:end]}"]
