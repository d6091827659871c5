"""The VAE works on overlapping tiles instead of the whole picture: its activations shrink with the tile.

The trap: a VAE like SDXL's or FLUX's starts tiling only above the size it was trained for, so at its native size
``enable_tiling()`` alone does nothing. The tile's size is therefore set where that is so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique, Use
from oomdoctor.techniques.context import checkpoint_tile
from oomdoctor.techniques.effects import Effect, TileVae
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_SCALE = 8
"""Pixels per latent of every VAE class whose tile is set through attributes, in the checkpoints there are."""
_ATTRIBUTES = ("tile_sample_min_size", "tile_latent_min_size")
_NATIVE_512 = ("StableDiffusion", "AnimateDiff", "PixArtAlpha")


class VaeTiling(Technique):
    name = "vae_tiling"
    summary = "Decode (and encode) the picture in tiles: little memory at any size; faint differences at the seams."
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#vae-tiling"
    tags = ("vae_memory",)
    phase = Phase.VAE
    quality = Quality.SLIGHT
    group = "offloading / casting"
    keys = {"size": (int,)}
    explains = {
        "size": "Side of a tile in pixels.",
    }

    def options(self, context: Context) -> tuple[Application, ...]:
        plain = self.resolve(Application(technique=self.name), context)
        return () if self.applies_to(context, plain) else (plain,)

    def resolve(self, application: Application, context: Context) -> Application:
        size = application.option("size", 0)
        if not size and context.vae is not None and context.vae.tile_attributes:
            size = 512 if _side(context) > 512 else 256
        options = (("size", size),) if size else ()
        return application.model_copy(update={"options": options})

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.use.kind == "model":
            return "the script uses a bare model and no pipeline; call the method of the VAE itself."
        if context.components and "vae" not in context.components and context.facts is not None:
            return f"{context.pipeline_class} has no vae."
        name, vae = context.class_of("vae"), context.vae
        if name is not None and vae is not None and not vae.tiling:
            other = " Use decode_chunk_size for its memory." if name == "AutoencoderKLTemporalDecoder" else ""
            return f"{name} cannot tile.{other}"
        size = application.option("size", 0) or (vae.tile if vae else None)
        if isinstance(size, int) and size and size < 64:
            return f"tiles of {size} pixels are smaller than the VAE can blend; use 256 or 512."
        side = context.image_side
        if vae is not None and isinstance(size, int) and side is not None and side <= size:
            return f"the picture ({side} pixels) is not larger than a tile ({size}), so tiling would do nothing."
        return None

    def idle(self, context: Context, present: Application) -> bool:
        """The picture is not larger than a tile: as the script sets it, else as the class or the checkpoint does."""
        vae = context.vae
        tile = present.option("size", 0) or (vae.tile if vae is not None else None)
        if not tile and vae is not None and vae.tile_attributes:
            tile = checkpoint_tile(context.use.model.value)
        return isinstance(tile, int) and tile > 0 and context.image_side is not None and context.image_side <= tile

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        size = application.option("size", 0)
        return (TileVae(int(size) if size else None),)

    def write(self, draft: Draft, application: Application) -> None:
        size = int(application.option("size", 0))
        vae, facts = draft.component("vae"), draft.context.vae
        if facts is None:
            draft.warn("The class of the VAE is not known here; some tile only above the size they were trained for.")
        reason = "Decodes the picture in overlapping tiles, so that the VAE needs little memory at once."
        if not size or facts is None:
            draft.after_load([f"{vae}.enable_tiling()"], self.phase, reason)
        elif facts.tile_attributes:
            draft.after_load(
                [
                    f"{vae}.enable_tiling()",
                    f"{vae}.tile_sample_min_size = {size}  # by default it tiles only above its native size",
                    f"{vae}.tile_latent_min_size = {size // _SCALE}",
                ],
                self.phase,
                reason,
            )
        else:
            written = _arguments(facts.tiling_arguments, size)
            draft.after_load([draft.call(f"{vae}.enable_tiling", *written)], self.phase, reason)

    def owns(self, use: Use) -> bool:
        if use.verb in _ATTRIBUTES:
            return use.owner == "vae"
        return (use.verb, use.owner) in (("enable_tiling", "vae"), ("enable_vae_tiling", ""))

    def read(self, context: Context) -> Application | None:
        found = self.found(context.use)
        if not any(u.verb in ("enable_tiling", "enable_vae_tiling") for u in found):
            return None
        sizes = [u.argument(n) for u in found for n in ("value", "tile_sample_min_height", "tile_sample_min_size")
                 if u.verb == "tile_sample_min_size" or n != "value"]  # fmt: skip
        size = next((s for s in sizes if isinstance(s, int)), 0)
        return Application(technique=self.name, options=(("size", size),) if size else ())

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat", height=1024, width=1024).images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
pipe.vae.enable_tiling()
pipe.vae.tile_sample_min_size = 512  # by default it tiles only above its native size
pipe.vae.tile_latent_min_size = 64
image = pipe("a cat", height=1024, width=1024).images[0]
""",
            "vae_tiling",
            why="at 1024 pixels enable_tiling() alone would do nothing",
        ),
        Changes(
            """\
import torch
from diffusers import WanPipeline

pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", torch_dtype=torch.bfloat16)
pipe.to("cuda")
video = pipe("a cat", height=480, width=832, num_frames=81).frames[0]
""",
            """\
import torch
from diffusers import WanPipeline

pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", torch_dtype=torch.bfloat16)
pipe.to("cuda")
pipe.vae.enable_tiling()
video = pipe("a cat", height=480, width=832, num_frames=81).frames[0]
""",
            "vae_tiling",
            why="this VAE's own tile is 256 pixels",
        ),
        Refusal(
            """\
import torch
from diffusers import StableVideoDiffusionPipeline

pipe = StableVideoDiffusionPipeline.from_pretrained("stabilityai/stable-video-diffusion-img2vid-xt", torch_dtype=torch.float16)
pipe.to("cuda")
frames = pipe(image).frames[0]
""",
            "vae_tiling",
            "cannot tile",
        ),
    )


def _side(context: Context) -> int:
    """The longer side of the picture: as called, else the family's native size."""
    written = context.image_side
    if written is not None:
        return written
    name = context.pipeline_class or ""
    small = name.startswith(_NATIVE_512) and not name.startswith(("StableDiffusionXL", "StableDiffusion3"))
    return 512 if small else 1024


def _arguments(names: tuple[str, ...], size: int) -> list[str]:
    """``enable_tiling`` arguments for square tiles with a quarter of overlap."""
    values = {
        "tile_sample_min_size": size,
        "tile_sample_min_height": size,
        "tile_sample_min_width": size,
        "tile_sample_stride_height": size * 3 // 4,
        "tile_sample_stride_width": size * 3 // 4,
        "tile_latent_min_height": None,
    }
    return [f"{n}={values[n]}" for n in names if values.get(n) is not None]
