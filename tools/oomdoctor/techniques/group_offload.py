"""Layers travel to the card one after the other, the next one while this one computes (with a stream).

The least weight memory of all offloading: ``leaf`` holds single layers, ``block`` whole transformer blocks. Blocks exist
only in diffusers' own models: a text encoder would be one single block, and most VAEs would never be brought to the
card for decoding, so those are always taken leaf by leaf.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique, Use
from oomdoctor.techniques.effects import Effect, Host, Place
from oomdoctor.techniques.facts import model_facts, pipeline_facts
from oomdoctor.techniques.model_offload import NO_PLACEMENT
from oomdoctor.values import Application, Component, Measurement, Quality

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_LEVELS = ("leaf", "block")
_FLAGS = {"stream": "use_stream", "record_stream": "record_stream", "low_cpu_mem": "low_cpu_mem_usage"}


class GroupOffload(Technique):
    name = "group_offload"
    summary = (
        "Bring layers to the card one by one, fetching ahead: the least memory; RAM and the PCIe bus set the pace."
    )
    docs = "https://huggingface.co/docs/diffusers/optimization/memory#group-offloading"
    tags = ("group_offload", "offload")
    phase = Phase.OFFLOAD
    quality = Quality.IDENTICAL
    group = "offloading / casting"
    conflicts = ("offload", "multi_gpu")
    words = "any"
    keys = {
        "stream": (bool,), "record_stream": (bool,), "low_cpu_mem": (bool,), "blocks": (int,), "disk": (bool, str),
    }  # fmt: skip
    explains = {
        "leaf": "Single layers: the least memory.",
        "block": "Whole transformer blocks: fewer, larger transfers.",
        "component": "Only these parts; the others stay on the card.",
        "stream": "Copies run beside the computing; needs page-locked RAM.",
        "record_stream": "Waits less between portions; a little more memory may linger.",
        "low_cpu_mem": "Page-locks each portion when it is needed: half the RAM, slower.",
        "blocks": "How many blocks at a time.",
        "disk": "Waits on disk instead of RAM; true, or a folder.",
    }

    def options(self, context: Context) -> tuple[Application, ...]:
        texts = ("(leaf, stream=true)", "(leaf, stream=true, record_stream=true)", "(leaf, stream=true, low_cpu_mem=true)",
                 "(block, blocks=1, stream=true)", "(block, blocks=2)", "(leaf)")  # fmt: skip
        return tuple(_parse(self.name + t) for t in texts)

    def resolve(self, application: Application, context: Context) -> Application:
        if not application.components and not application.options:
            return _parse("group_offload(leaf, stream=true)")
        level = next((w for w in application.components if w in _LEVELS), "leaf")
        names = tuple(w for w in application.components if w not in _LEVELS)
        options: dict[str, Any] = {k: v for k, v in application.options if v is not False}
        if level == "block":
            options["blocks"] = 1 if options.get("stream") else options.get("blocks", 1)
        return Application(
            technique=self.name,
            components=(level, *names),
            options=tuple((k, options[k]) for k in self.keys if k in options),
        )

    def applies_to(self, context: Context, application: Application) -> str | None:
        if context.use.kind == "model" and len(application.components) > 1:
            return "the script uses a bare model, which has no components to name."
        if context.use.kind == "model" and application.option("disk", False):
            return "the script uses a bare model; offloading to disk is written for the components of a pipeline."
        needed = "0.36" if context.use.kind == "pipeline" else "0.33"
        if context.older("diffusers", needed):
            return f"it needs diffusers {needed} or newer (pip install -U diffusers)."
        stream = application.option("stream", False)
        for option in ("record_stream", "low_cpu_mem"):
            if application.option(option, False) and not stream:
                return f"{option} means nothing without stream=true."
        if any(a.technique.startswith("torchao") for a in context.strategy.applications):
            if application.option("disk", False):
                return "weights quantised by torchao cannot be offloaded to disk."
            if application.option("low_cpu_mem", False):
                return "weights quantised by torchao are not copied for low_cpu_mem and would never leave the card."
            twice = [n for n in context.denoisers if (facts := context.model(n)) is not None and facts.repeats_layers]
            if stream and application.components[:1] == ("leaf",) and twice:
                return (
                    f"{context.class_of(twice[0])} calls some layers twice in a row; fetched ahead on a stream, weights "
                    "quantised by torchao are gone the second time. Leave the stream out."
                )
        if int(application.option("blocks", 1)) < 1:
            return "blocks must be at least 1."
        names, known = application.components[1:], context.components
        wrong = [n for n in names if not context.may_have(n)]
        if wrong:
            return f"there is no component {', '.join(wrong)}; there are {', '.join(known)}."
        if context.facts is not None and all(_unsupported(context.class_of(n)) for n in context.denoisers or ("?",)):
            return f"the model that runs the steps ({context.class_of(context.denoisers[0])}) does not support it."
        if application.components[0] == "block":
            return self._no_blocks(context)
        return None

    def _no_blocks(self, context: Context) -> str | None:
        if not context.denoisers:
            return "the script does not tell which model runs the steps, so its blocks are not known; use leaf."
        for name in context.denoisers:
            facts = context.model(name)
            if facts is not None and (not facts.blocks or facts.nested):
                return f"{context.class_of(name)} has no list of blocks to take apart; use leaf."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        level, *names = application.components or ("leaf",)
        stream, record = bool(application.option("stream", False)), bool(application.option("record_stream", False))
        host: Host = "pageable"
        if application.option("disk", False):
            host = "disk"
        elif stream:
            host = "pinned_on_demand" if application.option("low_cpu_mem", False) else "pinned"
        copies = stream or host == "disk"
        leaf = Place("*", "leaf", 1, stream, record, host, writes_back=not stream and host != "disk")
        effects: dict[str, Effect] = {"*": replace(leaf, mode="resident") if names else leaf}
        effects |= {n: replace(leaf, component=n) for n in names}
        if level == "block":
            blocks = int(application.option("blocks", 1))
            effects |= {
                n: replace(leaf, component=n, mode="block", blocks=blocks) for n in names or _denoisers(measurement)
            }
        for component in measurement.components if measurement else ():
            if _unsupported(component.class_name) or (copies and _may_be_upcast(measurement, component)):
                effects[component.name] = Place(component.name, "resident")
        return tuple(effects.values())

    def write(self, draft: Draft, application: Application) -> None:
        self.tidy(draft, application)
        level, *names = application.components
        device = f"onload_device={draft.name('torch.device')}({draft.quote('cuda')})"
        flags = [f"{keyword}=True" for option, keyword in _FLAGS.items() if application.option(option, False)]
        leaf = [device, f"offload_type={draft.quote('leaf_level')}", *flags]
        fetch = " and fetches the next while one computes" if application.option("stream", False) else ""
        reason = f"Brings single layers to the card just before they run{fetch}; the weights wait in RAM."
        context = draft.context
        block = [device, f"offload_type={draft.quote('block_level')}",
                 f"num_blocks_per_group={application.option('blocks', 1)}", *flags]  # fmt: skip
        if draft.use.kind == "model":
            given = block if level == "block" else leaf
            reason = reason if level == "leaf" else "Brings the model to the card a few blocks at a time."
            draft.after_load([draft.call(f"{draft.pipe}.enable_group_offload", *given)], self.phase, reason)
            return
        if application.option("disk", False):
            self._write_disk(draft, application, leaf)
            return
        excluded = _left_out(context, application)
        if level == "block":
            blocky = [n for n in names or context.denoisers if n in context.denoisers]
            for name in blocky:
                draft.after_load(
                    [draft.call(f"{draft.component(name)}.enable_group_offload", *block)],
                    self.phase,
                    f"Brings the {name} to the card a few blocks at a time; the rest of it waits in RAM.",
                )
            excluded += blocky
        if names:
            excluded += [n for n in context.components if n not in names and n not in excluded]
        if excluded:
            leaf.append(f"exclude_modules=[{', '.join(draft.quote(n) for n in excluded)}]")
        draft.after_load([draft.call(f"{draft.pipe}.enable_group_offload", *leaf)], self.phase, reason)

    def _write_disk(self, draft: Draft, application: Application, arguments: list[str]) -> None:
        """One fresh folder per component: files are named by layer, and existing ones are never rewritten."""
        context, where = draft.context, application.option("disk", True)
        make = draft.name("tempfile.mkdtemp")
        folder = f"{make}(dir={draft.quote(where)})" if isinstance(where, str) else f"{make}()"
        left_out = _left_out(context, application)
        names = [n for n in context.components if n not in left_out]  # those in a folder of their own
        if "vae" in left_out and not _unsupported(context.class_of("vae")):
            left_out.remove("vae")
            line = draft.call(f"{draft.component('vae')}.enable_group_offload", *arguments[:2])
            draft.after_load([line], self.phase, "Keeps the vae in RAM: it changes its dtype, which files would undo.")
        rest = ", ".join(f"{draft.pipe}.{n}" for n in (*left_out, *context.perhaps))
        if rest:
            draft.by_hand(f"Put what is not offloaded to disk on the card where it is there: {rest}.")
        if not names:
            draft.by_hand("Offload each component to a folder of its own: `pipe.transformer.enable_group_offload(..., "
                          "offload_to_disk_path=tempfile.mkdtemp())`; one shared folder mixes weights up.")  # fmt: skip
        for name in names:
            written = [*arguments, f"offload_to_disk_path={folder}"]
            if context.model(name) is not None:
                line = draft.call(f"{draft.component(name)}.enable_group_offload", *written)
            else:
                line = draft.call(draft.name("diffusers.hooks.apply_group_offloading"), draft.component(name), *written)
            draft.after_load([line], self.phase, f"Keeps the {name}'s layers in a folder of its own until they run.")

    def tidy(self, draft: Draft, application: Application) -> None:
        draft.remove_placement(NO_PLACEMENT)

    def owns(self, use: Use) -> bool:
        return use.verb in ("enable_group_offload", "apply_group_offloading")

    def read(self, context: Context) -> Application | None:
        found = self.found(context.use)
        if not found:
            return None
        whole = [u for u in found if not u.owner] or list(found)
        blocks = [u for u in found if u.argument("offload_type", "block_level") != "leaf_level"]
        first = whole[0]
        options: dict[str, Any] = {k: True for k, keyword in _FLAGS.items() if first.argument(keyword, False) is True}
        if blocks:
            options["blocks"] = blocks[0].argument("num_blocks_per_group", 1)
        if any(u.text("offload_to_disk_path") for u in found):
            options["disk"] = True
        named: tuple[str, ...] = ()
        if all(u.owner for u in found) and context.use.kind == "pipeline" and "disk" not in options:
            named = tuple(dict.fromkeys(u.owner.split(".")[0] for u in found))
        elif first.argument("exclude_modules"):
            rest = [n for n in context.components if n not in first.argument("exclude_modules")]
            rest += [u.owner for u in blocks if u.owner]
            written = Application(technique=self.name, options=tuple(options.items()))
            complete = {*rest, *_left_out(context, written)} >= set(context.components)
            named = () if complete else tuple(rest)
        return self.resolve(
            Application(
                technique=self.name, components=("block" if blocks else "leaf", *named), options=tuple(options.items())
            ),
            context,
        )

    examples: ClassVar = (
        Changes(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)
image = pipe("a cat").images[0]
""",
            "group_offload(leaf, stream=true)",
        ),
        Changes(
            """\
import torch
from diffusers import CogVideoXPipeline

pipe = CogVideoXPipeline.from_pretrained("THUDM/CogVideoX-5b", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()
video = pipe("a panda").frames[0]
""",
            """\
import torch
from diffusers import CogVideoXPipeline

pipe = CogVideoXPipeline.from_pretrained("THUDM/CogVideoX-5b", torch_dtype=torch.bfloat16)
pipe.transformer.enable_group_offload(
    onload_device=torch.device("cuda"),
    offload_type="block_level",
    num_blocks_per_group=2,
)
pipe.enable_group_offload(
    onload_device=torch.device("cuda"),
    offload_type="leaf_level",
    exclude_modules=["transformer"],
)
video = pipe("a panda").frames[0]
""",
            "group_offload(block, blocks=2)",
            why="blocks for the transformer only: this VAE would never come to the card to decode",
        ),
        Changes(
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat").images[0]
""",
            """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.enable_group_offload(
    onload_device=torch.device("cuda"),
    offload_type="leaf_level",
    use_stream=True,
    exclude_modules=["vae"],
)
image = pipe("a cat").images[0]
""",
            "group_offload(leaf, stream=true)",
            why="this pipeline decodes in float32, and the copies that a stream needs would stay float16",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "group_offload(leaf, record_stream=true)",
            "without stream",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "torchao_int8(transformer)+group_offload(leaf, stream=true, low_cpu_mem=true)",
            "never leave the card",
        ),
        Refusal(
            """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
image = pipe("a cat").images[0]
""",
            "group_offload(leaf, stream=true)+model_offload",
            "cannot be combined",
        ),
    )


def _parse(text: str) -> Application:
    from oomdoctor.values import Strategy

    return Strategy.parse(text).applications[0]


def _unsupported(class_name: str | None) -> bool:
    facts = model_facts(class_name)
    return facts is not None and not facts.group_offload


def _left_out(context: Context, application: Application) -> list[str]:
    """Components that stay on the card: those that cannot be offloaded so, and a VAE that changes its dtype while it
    works, where a copy of its weights is kept: the copy has the old dtype and would come back at each layer."""
    found = [n for n in context.components if _unsupported(context.class_of(n))]
    copies = application.option("stream", False) or application.option("disk", False)
    return [*found, "vae"] if copies and context.upcasts_vae and "vae" in context.components else found


def _may_be_upcast(measurement: Measurement | None, component: Component) -> bool:
    facts = pipeline_facts(measurement.pipeline_class) if measurement is not None else None
    in_16_bits = component.loaded_bytes < 3 * component.params
    return facts is not None and facts.upcasts_vae and component.name == "vae" and in_16_bits


def _denoisers(measurement: Measurement | None) -> tuple[str, ...]:
    """Components whose blocks can be taken one by one: diffusers' models that run the steps."""
    if measurement is None:
        return ("transformer",)
    return tuple(
        c.name
        for c in measurement.components
        if c.blocks and (model_facts(c.class_name) is not None) and "vae" not in c.name
    )
