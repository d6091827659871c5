"""Loading straight onto the card, with ``device_map="cuda"``: each weight is read from the file and sent there.

For machines whose RAM is smaller than the model, such as hosted notebooks. Where the checkpoint has another dtype than
the one that is loaded, the converted copy fills RAM before ``.to("cuda")`` is reached; this way it never stands there.
The card must hold everything, and nothing can be offloaded afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.techniques.device_map.parts import loaded_alone, spread_part
from oomdoctor.techniques.effects import Effect, Place
from oomdoctor.values import Application, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_CLOSE = 0.9
"""RAM may be short when loading took more than this share of it: the estimate of other ways has margins."""


class LoadToCard(Technique):
    name = "load_to_card"
    summary = "Load each weight straight onto the card: RAM never holds the model, the card holds all of it."
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#device-placement"
    tags = ("placement", "loading")
    phase = Phase.LOAD
    quality = Quality.IDENTICAL
    conflicts = ("offload", "group_offload", "layerwise_casting", "text_encoder_release", "multi_gpu", "quantization",
                 "low_ram_loading")  # fmt: skip
    settles = False

    def options(self, context: Context) -> tuple[Application, ...]:
        """Only where RAM is short: otherwise it does nothing that ``.to("cuda")`` does not."""
        loading = context.measurement.load_host_bytes if context.measurement is not None else None
        if context.target is None or loading is None or loading <= _CLOSE * context.target.ram_bytes:
            return ()
        plain = Application(technique=self.name)
        return (plain,) if self.applies_to(context, plain) is None else ()

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.use.kind != "pipeline" or context.use.loader != "from_pretrained":
            return "only a pipeline that is loaded by from_pretrained can be loaded straight onto the card."
        if context.missing("accelerate"):
            return "it needs the package accelerate, which is not installed (pip install accelerate)."
        if context.older("diffusers", "0.36"):
            return "pipelines take device_map='cuda' from diffusers 0.36 on."
        low = context.use.load_arguments.get("low_cpu_mem_usage")
        if low is not None and low.value is False:
            return "the script loads with low_cpu_mem_usage=False, which excludes it."
        if own := loaded_alone(context):
            return f"{', '.join(own)} is loaded by itself and would stay in RAM."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return (Place("*", "resident", direct=True),)

    def write(self, draft: Draft, application: Application) -> None:
        draft.remove_placement("Everything is on the card when loading is done; moving it again would be an error.")
        reason = "Sends each weight to the card as it is read, so that RAM never holds the model."
        draft.set_load_argument("device_map", draft.quote("cuda"), reason)

    def remove(self, draft: Draft) -> None:
        draft.remove_placement("Takes out the device map: the chosen strategy does without it.")

    def read(self, context: Context) -> Application | None:
        known = context.use.load_arguments.get("device_map")
        beside = spread_part(context) is not None  # the rest of a pipeline, one model of which is spread
        return Application(technique=self.name) if known is not None and known.value == "cuda" and not beside else None

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import PixArtSigmaPipeline

pipe = PixArtSigmaPipeline.from_pretrained("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import PixArtSigmaPipeline

pipe = PixArtSigmaPipeline.from_pretrained("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", torch_dtype=torch.float16, device_map="cuda")
image = pipe("a cat").images[0]
""",
            "load_to_card",
            why="the T5 encoder is stored in 32 bit, so loading it in 16 bit makes a copy in RAM",
        ),
        Refusal(
            """\
import torch
from diffusers import PixArtSigmaPipeline

pipe = PixArtSigmaPipeline.from_pretrained("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", torch_dtype=torch.float16)
image = pipe("a cat").images[0]
""",
            "load_to_card+model_offload",
            "cannot be combined",
        ),
    )
