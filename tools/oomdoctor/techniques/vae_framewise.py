"""A video VAE decodes a few frames at a time instead of the whole clip: the usual cure for running out at decoding.

Wan, CogVideoX, HunyuanVideo and Mochi do so by themselves; LTX and Cosmos have a switch that ``enable_tiling`` does
not touch; Stable Video Diffusion and AnimateDiff take ``decode_chunk_size`` at the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique, Use
from oomdoctor.techniques.effects import Effect, FrameVae
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_REASON = "Decodes a few frames at a time instead of the whole clip."


class VaeFramewise(Technique):
    name = "vae_framewise"
    summary = "Decode a video a few frames at a time; faint differences between the portions."
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#vae-tiling"
    tags = ("vae_memory",)
    phase = Phase.VAE
    quality = Quality.SLIGHT
    group = "offloading / casting"
    keys = {"frames": (int,)}
    explains = {
        "frames": "Frames at a time, for pipelines that take decode_chunk_size.",
    }

    def options(self, context: Context) -> tuple[Application, ...]:
        plain = self.resolve(Application(technique=self.name), context)
        return () if self.applies_to(context, plain) else (plain,)

    def resolve(self, application: Application, context: Context) -> Application:
        if not _takes_chunks(context):
            return application
        frames = application.option("frames", 2)
        return application.model_copy(update={"options": (("frames", frames),)})

    def applies_to(self, context: Context, application: Application) -> str | None:
        frames = application.option("frames", 0)
        if _takes_chunks(context):
            if not context.use.calls:
                return "there is no call of the pipeline in this script to pass decode_chunk_size to."
            return "frames must be at least 1." if int(frames) < 1 else None
        if frames:
            return "only pipelines with decode_chunk_size take a number of frames."
        vae, name = context.vae, context.class_of("vae")
        if vae is None:
            return "the class of the VAE is not known, so it is not known whether it has this switch."
        if vae.framewise is None:
            return f"{name} has no switch for it (most video VAEs already decode in portions)."
        if vae.framewise:
            return f"{name} does it already."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        frames = application.option("frames", 0)
        return (FrameVae(int(frames) if frames else None),)

    def write(self, draft: Draft, application: Application) -> None:
        frames = application.option("frames", 0)
        if frames:
            for call in draft.use.calls:
                draft.set_call_argument(call, "decode_chunk_size", str(frames), _REASON)
            return
        draft.after_load([f"{draft.component('vae')}.use_framewise_decoding = True"], self.phase, _REASON)

    def owns(self, use: Use) -> bool:
        return use.verb == "use_framewise_decoding" and use.owner == "vae"

    def read(self, context: Context) -> Application | None:
        frames = context.use.calls[0].arguments.get("decode_chunk_size") if context.use.calls else None
        if frames is not None and isinstance(frames.value, int):
            return Application(technique=self.name, options=(("frames", frames.value),))
        found = [u for u in self.found(context.use) if u.argument("value") is not False]
        return Application(technique=self.name) if found else None

    def remove(self, draft: Draft) -> None:
        super().remove(draft)
        for call in draft.use.calls:
            draft.remove_call_argument(call, "decode_chunk_size", "Goes back to the pipeline's own number of frames.")

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import LTXPipeline

pipe = LTXPipeline.from_pretrained("Lightricks/LTX-Video", torch_dtype=torch.bfloat16).to("cuda")
video = pipe("a cat", num_frames=161).frames[0]
""",
            """\
import torch
from diffusers import LTXPipeline

pipe = LTXPipeline.from_pretrained("Lightricks/LTX-Video", torch_dtype=torch.bfloat16).to("cuda")
pipe.vae.use_framewise_decoding = True
video = pipe("a cat", num_frames=161).frames[0]
""",
            "vae_framewise",
        ),
        Changes(
            """\
import torch
from diffusers import StableVideoDiffusionPipeline

pipe = StableVideoDiffusionPipeline.from_pretrained("stabilityai/stable-video-diffusion-img2vid-xt", torch_dtype=torch.float16)
pipe.to("cuda")
frames = pipe(image, decode_chunk_size=8).frames[0]
""",
            """\
import torch
from diffusers import StableVideoDiffusionPipeline

pipe = StableVideoDiffusionPipeline.from_pretrained("stabilityai/stable-video-diffusion-img2vid-xt", torch_dtype=torch.float16)
pipe.to("cuda")
frames = pipe(image, decode_chunk_size=2).frames[0]
""",
            "vae_framewise(frames=2)",
        ),
        Refusal(
            """\
import torch
from diffusers import WanPipeline

pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", torch_dtype=torch.bfloat16)
video = pipe("a cat").frames[0]
""",
            "vae_framewise",
            "already decode in portions",
        ),
    )


def _takes_chunks(context: Context) -> bool:
    return context.facts is not None and "decode_chunk_size" in context.facts.call
