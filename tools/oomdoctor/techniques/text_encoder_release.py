"""The prompt is encoded first, then the text encoders are dropped for good: their memory is free for the steps.

No speed is lost and nothing travels twice, but the script can encode no further prompt afterwards.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique, Use
from oomdoctor.techniques.context import checkpoint_distilled
from oomdoctor.techniques.effects import Effect, Place, Release
from oomdoctor.techniques.facts import PipelineFacts
from oomdoctor.techniques.quantisation import configurations
from oomdoctor.values import Application, Call, Measurement, Quality, Stage

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_PROMPT = re.compile(r"(negative_)?prompt(_\d)?\Z")
_FILLED = {"num_images_per_prompt": "1", "num_videos_per_prompt": "1", "do_classifier_free_guidance": "True"}


class TextEncoderRelease(Technique):
    name = "text_encoder_release"
    summary = "Encode the prompt first, drop the text encoders, then bring the rest to the card; no time is lost."
    docs = "https://huggingface.co/docs/diffusers/using-diffusers/weighted_prompts"
    tags = ("text_encoder_release",)
    phase = Phase.CALL
    quality = Quality.IDENTICAL
    group = "offloading / casting"
    conflicts = ("offload", "group_offload", "multi_gpu")

    def options(self, context: Context) -> tuple[Application, ...]:
        plain = Application(technique=self.name)
        return (plain,) if context.large_text_encoders and self.applies_to(context, plain) is None else ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if self.read(context) is not None:
            return None
        facts, use = context.facts, context.use
        if facts is None:
            return "the class of the pipeline is not known, so it is not known how it takes ready embeddings."
        if not context.text_encoders:
            return f"{context.pipeline_class} has no text encoder."
        if facts.encode_prompt is None or not _taken(facts):
            return f"{context.pipeline_class} does not take ready embeddings."
        if "device" not in facts.encode_prompt:
            return f"encode_prompt of {context.pipeline_class} takes no device."
        if not use.calls:
            return "the script does not call the pipeline, so there is no prompt to encode."
        if len(use.calls) != 1 or use.calls[0].in_loop:
            return "the pipeline is called more than once, and later prompts need the text encoders."
        call = use.calls[0]
        if (call.scope or "") != (use.scope or ""):
            return "the call stands in another function than the load and may run again with another prompt."
        return _unencodable(facts, call, checkpoint_distilled(use.model.value))

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        names = [c.name for c in measurement.components if c.name.startswith("text_encoder")] if measurement else []
        released = tuple(Release(n, Stage.TEXT_ENCODE) for n in names or ["text_encoder"])
        here = tuple(Place(n, "resident") for n in names or ["text_encoder"])
        return (Place("*", "resident", after_stage=Stage.TEXT_ENCODE), *here, *released)

    def write(self, draft: Draft, application: Application) -> None:
        facts, call, pipe = draft.context.facts, draft.use.calls[0], draft.pipe
        assert facts is not None and facts.encode_prompt is not None
        draft.remove_placement("The rest comes to the card only after the text encoders have left it.")
        cuda = draft.quote("cuda")
        encoders = draft.context.text_encoders
        written = self._arguments(draft, facts, call)
        results = [n if n in facts.call else "_" for n in facts.encode_prompt_returns]
        no_grad, empty = draft.name("torch.no_grad"), draft.name("torch.cuda") + ".empty_cache"
        encode = draft.call(f"{', '.join(results)} = {pipe}.encode_prompt", *written, f"device={cuda}")
        unit = draft.text.indent_unit
        lines = [
            *(f"{pipe}.{n}.to({cuda})" for n in encoders),
            f"with {no_grad}():",
            *(unit + row for row in encode.split("\n")),
            " = ".join(f"{pipe}.{n}" for n in encoders) + " = None  # the embeddings are all that is needed from here",
            *([f"{draft.name('gc')}.collect()"] if _has_cycles(draft) else []),
            f"{empty}()",
            f"{pipe}.to({cuda})",
        ]
        reason = "Encodes the prompt, drops the text encoders, and only then brings the rest to the card."
        if not draft.before_call(lines, reason):
            draft.by_hand(f"Before line {call.span.line}, add:\n" + "\n".join(lines))
            return
        draft.replace_prompt(
            call, [n for n in results if n != "_"], "The call takes the embeddings instead of the words."
        )

    @staticmethod
    def _arguments(draft: Draft, facts: PipelineFacts, call: Call) -> list[str]:
        given = {k: draft.written(v) for k, v in call.arguments.items()}
        first = draft.written(call.positional[0]) if call.positional else None
        written = [first] if first else []
        for name in facts.encode_prompt or ():
            if name == "prompt" and first:
                continue
            if name in given and (_PROMPT.match(name) or name in ("max_sequence_length", "clip_skip")):
                written.append(f"{name}={given[name]}")
            elif name in facts.encode_prompt_required and name != "device":
                written.append(f"{name}={_FILLED.get(name, 'None')}")
        return written

    def owns(self, use: Use) -> bool:
        return not use.owner and use.verb.startswith("text_encoder") and use.text("value") == "None"

    def read(self, context: Context) -> Application | None:
        encoded = any(c.pipeline.endswith("encode_prompt") for c in context.use.part_calls)
        return Application(technique=self.name) if encoded and self.found(context.use) else None

    def remove(self, draft: Draft) -> None:
        draft.restore_prompt("The call takes the words again.")

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
prompt = "a cat"
image = pipe(prompt, height=1024, width=1024).images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
prompt = "a cat"
pipe.text_encoder.to("cuda")
pipe.text_encoder_2.to("cuda")
with torch.no_grad():
    prompt_embeds, pooled_prompt_embeds, _ = pipe.encode_prompt(prompt, device="cuda")
pipe.text_encoder = pipe.text_encoder_2 = None  # the embeddings are all that is needed from here
torch.cuda.empty_cache()
pipe.to("cuda")
image = pipe(prompt_embeds=prompt_embeds, pooled_prompt_embeds=pooled_prompt_embeds, height=1024, width=1024).images[0]
""",
            "text_encoder_release",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
for prompt in ("a cat", "a dog"):
    image = pipe(prompt).images[0]
""",
            "text_encoder_release",
            "more than once",
        ),
    )


def _has_cycles(draft: Draft) -> bool:
    """torchao hangs a method of each layer it quantises on that layer, and bitsandbytes' 4-bit weights know their layer:
    only the collector of cycles frees those."""
    own = configurations(draft.context)
    stays = any(c.kind is None for name, c in own.items() if name == "*" or name.startswith("text_encoder"))
    planned = (a.technique for a in draft.context.strategy.applications)
    return stays or any(name.startswith(("torchao", "bnb_nf4")) for name in planned)


def _taken(facts: PipelineFacts) -> bool:
    """Everything that carries the prompt can be handed to the call."""
    return "prompt_embeds" in facts.encode_prompt_returns and "prompt_embeds" in facts.call


def _unencodable(facts: PipelineFacts, call: Call, distilled: bool) -> str | None:
    """Why the arguments of this call cannot be encoded in advance."""
    encode = facts.encode_prompt or ()
    for name in facts.encode_prompt_required:
        if name != "device" and not _PROMPT.match(name) and name not in _FILLED:
            return f"encoding the prompt needs {name}, which is made inside the call."
    for name, known in call.arguments.items():
        if _PROMPT.match(name) and name not in encode:
            return f"{name} is encoded inside the call."
        if name in ("num_images_per_prompt", "num_videos_per_prompt") and known.value != 1:
            return "with several pictures per prompt the embeddings have another shape."
        if name.endswith("prompt_embeds"):
            return "the call takes ready embeddings already."
    if not call.positional and not any(_PROMPT.match(name) for name in call.arguments):
        return "the call names no prompt."
    if facts.encodes_again is not None:
        scale = call.arguments.get("guidance_scale")
        plain = scale is not None and isinstance(scale.value, int | float) and scale.value <= 1
        plain = plain or (facts.distilled_unguided and distilled)
        if facts.encodes_again == "always" or not plain:
            way = "" if facts.encodes_again == "always" else "; it does not with guidance_scale=1.0 written out"
            return f"the call encodes a second prompt, the one that it guides away from{way}."
    if call.positional and encode[:1] != ("prompt",):
        return "the call passes its prompt by position, and encode_prompt has another order."
    if len(call.positional) > 1:
        return "the call passes more than the prompt by position."
    return None
