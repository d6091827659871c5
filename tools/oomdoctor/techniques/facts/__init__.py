"""What the techniques know about the classes of diffusers, read from a recorded version (``collect`` records it).

Unknown classes answer None everywhere: a technique that needs to know says so instead of guessing.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

DENOISERS = ("transformer", "unet", "transformer_2", "unconditional_transformer", "prior", "decoder")
"""Names under which pipelines keep the models that run the steps."""


class VaeFacts(BaseModel):
    """How a VAE class cuts its work."""

    model_config = ConfigDict(frozen=True)
    tiling: bool
    tiling_arguments: tuple[str, ...] = ()
    """Arguments of ``enable_tiling``; empty when it takes none."""
    tile: int | None = None
    """Side of a tile in pixels when nothing is passed; None when the checkpoint's config decides."""
    tile_attributes: bool = False
    """The tile's size is set through ``tile_sample_min_size`` and ``tile_latent_min_size``; by default it equals the
    size the VAE was trained for, so that tiling does nothing up to there."""
    slicing: bool
    block_decode: bool
    """Block-level offloading brings the weights to the card for ``decode`` (its hook sits on ``forward``)."""
    framewise: bool | None = None
    """Initial value of ``use_framewise_decoding``; None: there is no such switch."""


class ModelFacts(BaseModel):
    """What a model class supports."""

    model_config = ConfigDict(frozen=True)
    repeated_blocks: bool = False
    group_offload: bool = True
    blocks: tuple[str, ...] = ()
    """Attributes that hold a ModuleList: what block-level offloading can take apart."""
    nested: bool = False
    """Blocks are lists themselves, whose hooks never run: they cannot be taken one by one."""
    repeats_layers: bool = False
    """A block calls the same layers twice in a row, so a prefetched layer has left when it is needed again."""
    cache: bool = False
    first_block: bool = False
    """FirstBlockCache knows what its blocks return; elsewhere it raises."""
    context_parallel: bool = False
    spreads: bool = False
    """It says which of its modules must stay whole, so that ``device_map="auto"`` can spread it over cards."""
    single_file: bool = False
    fuse_qkv: bool = False
    forward_chunking: bool = False
    vae: VaeFacts | None = None


class PipelineFacts(BaseModel):
    """What a pipeline class is made of and takes."""

    model_config = ConfigDict(frozen=True)
    components: dict[str, tuple[str, ...]] = {}
    """Model components -> classes they may be."""
    first: str | None = None
    """The model that is registered first: a pipeline that is spread over cards works on that one's card."""
    optional: tuple[str, ...] = ()
    """Components that a checkpoint may leave out."""
    offload_sequence: tuple[str, ...] = ()
    call: tuple[str, ...] = ()
    encode_prompt: tuple[str, ...] | None = None
    encode_prompt_required: tuple[str, ...] = ()
    encode_prompt_returns: tuple[str, ...] = ()
    encodes_again: Literal["always", "guidance"] | None = None
    """Its call encodes a second prompt by itself, the empty one, say: always, or where it guides."""
    distilled_unguided: bool = False
    """It never guides a checkpoint that says it is distilled, whatever the scale."""
    fuse_qkv: bool = False
    lora: bool = True
    cache_context: bool = False
    """It tells its models which of several passes a step is in; caches raise without that."""
    current_timestep: bool = False
    """It tells which step it is at, which the pyramid cache asks it."""
    negative_prompt_filled: bool = False
    """Its call has a negative prompt by itself and takes no embeddings of another unless that is None."""
    reads_dtype: tuple[str, ...] = ()
    """Components whose weights' dtype it takes for its own tensors: stored in 8 bits or fewer they mislead it."""
    upcasts_vae: bool = False
    """It converts a float16 VAE to float32 while it decodes, when the VAE's config says so."""
    upcasts_pictures: bool = False
    """It converts a VAE of any dtype to float32 while it encodes a picture, when the VAE's config says so."""

    @property
    def denoisers(self) -> tuple[str, ...]:
        """The models that run the steps; a second one that a checkpoint may lack is not among them."""
        found = [name for name in DENOISERS if name in self.components]
        return tuple(name for i, name in enumerate(found) if i == 0 or name not in self.optional)

    @property
    def text_encoders(self) -> tuple[str, ...]:
        return tuple(name for name in self.components if name.startswith("text_encoder"))


@cache
def _recorded() -> dict[str, Any]:
    text = files(__name__).joinpath("diffusers.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def recorded_version() -> str:
    """The version of diffusers that the facts were read from."""
    return str(_recorded()["diffusers"])


@cache
def pipeline_facts(name: str | None) -> PipelineFacts | None:
    """Facts of a pipeline class; None for one that is not known (or decided by the checkpoint)."""
    found = _recorded()["pipelines"].get(name)
    return None if found is None else PipelineFacts.model_validate(found)


@cache
def model_facts(name: str | None) -> ModelFacts | None:
    """Facts of a diffusers model class; None for one that is not known, transformers' classes among them."""
    found = _recorded()["models"].get(name)
    return None if found is None else ModelFacts.model_validate(found)
