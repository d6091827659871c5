"""Everything that decides whether a technique is legal: the script, what was measured, the machine, the versions."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oomdoctor.errors import OomDoctorError
from oomdoctor.loading.entries import ModelFiles
from oomdoctor.models import resolve
from oomdoctor.techniques.facts import (
    DENOISERS,
    ModelFacts,
    PipelineFacts,
    VaeFacts,
    model_facts,
    pipeline_facts,
    recorded_version,
)
from oomdoctor.units import GIB
from oomdoctor.values import Application, Diagnosis, Known, Measurement, PipelineUse, Script, Strategy, Target

_AUTOMATIC = re.compile(r"(DiffusionPipeline|AutoPipeline\w*|AutoModel\w*)\Z")
_NUMBER = re.compile(r"\d+")
_AS_THE_CHECKPOINT_SAYS = ("DiffusionPipeline", "AutoPipelineForText2Image")
BROKEN_TEXT_ENCODERS = ("T5EncoderModel", "UMT5EncoderModel", "T5ForConditionalGeneration")


def parse_version(text: str | None) -> tuple[int, ...] | None:
    """``0.42.1`` -> (0, 42, 1); local and pre-release parts are dropped."""
    if not text:
        return None
    numbers = _NUMBER.findall(text.split("+")[0])
    return tuple(int(n) for n in numbers[:3]) or None


@functools.lru_cache(maxsize=256)
def _in_catalogue(model: object) -> ModelFiles | None:
    """What a model id of the catalogue stands for; folders of this machine are not looked at."""
    if not isinstance(model, str) or os.path.exists(model):
        return None
    try:
        return resolve(model)
    except OomDoctorError:
        return None


def checkpoint_class(model: object) -> str | None:
    """The pipeline class that a model id of the catalogue stands for."""
    files = _in_catalogue(model)
    return files.pipeline_class if files is not None else None


def checkpoint_components(model: object) -> frozenset[str]:
    """Names of the components that a model id of the catalogue brings; empty for one that is not known."""
    files = _in_catalogue(model)
    return frozenset(c.name for c in files.components) if files is not None else frozenset()


def checkpoint_distilled(model: object) -> bool:
    """Whether a model id of the catalogue is distilled to need no guidance, as its own configuration says."""
    files = _in_catalogue(model)
    return files is not None and files.settings.get("is_distilled") is True


def checkpoint_tile(model: object) -> int | None:
    """Side in pixels that the VAE of a model id of the catalogue was trained for, which is its tile by default."""
    files = _in_catalogue(model)
    found = files.component("vae") if files is not None else None
    side = found.config.get("sample_size") if found is not None and found.config else None
    return side if isinstance(side, int) else None


@dataclass(frozen=True)
class Context:
    """What is known when a technique is chosen or written."""

    script: Script
    use: PipelineUse
    measurement: Measurement | None = None
    target: Target | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Distribution -> version in the user's interpreter; None: not installed; missing: not known."""
    source: str = ""
    """The script's text; empty when only the reading of it is at hand."""
    strategy: Strategy = field(default_factory=Strategy)
    """The strategy that is being considered, for rules about combinations."""
    diagnosis: Diagnosis | None = None
    """What the error message said, when there was one."""

    @property
    def pipeline_class(self) -> str | None:
        """The real class: as measured, else as written, else as the checkpoint decides where it is a known one."""
        if self.measurement is not None and self.measurement.pipeline_class:
            return self.measurement.pipeline_class
        written = self.use.class_name
        if written is None or not _AUTOMATIC.match(written):
            return written
        return checkpoint_class(self.use.model.value) if written in _AS_THE_CHECKPOINT_SAYS else None

    @functools.cached_property
    def facts(self) -> PipelineFacts | None:
        return pipeline_facts(self.pipeline_class)

    @functools.cached_property
    def components(self) -> tuple[str, ...]:
        """Names of the model components, as far as known: without those that a checkpoint may lack (unless measured, or
        it is a known one that has them), and without those that the script sets to None."""
        names: dict[str, None] = {}
        if self.use.kind == "model":
            return (self.bare,) if self.bare else ()
        if self.measurement is not None:
            names |= dict.fromkeys(c.name for c in self.measurement.components)
        elif self.facts is not None:
            there = checkpoint_components(self.use.model.value)
            optional = set(self.facts.optional) - set(self.facts.denoisers) - there
            names |= dict.fromkeys(n for n in self.facts.components if n not in optional)
        names |= dict.fromkeys(c.name for c in self.use.components if c.class_name and not _is_part(c.class_name))
        dropped = {k for k, v in self.use.load_arguments.items() if v.value is None and v.text == "None"}
        return tuple(n for n in names if n not in dropped and n not in self.replaced)

    @property
    def perhaps(self) -> tuple[str, ...]:
        """Components that the checkpoint may have and that are not seen without a measurement."""
        if self.measurement is not None or self.facts is None:
            return ()
        if checkpoint_class(self.use.model.value) == self.pipeline_class:  # what it has is known
            return ()
        dropped = {k for k, v in self.use.load_arguments.items() if v.text == "None"}
        return tuple(n for n in self.facts.optional if n not in self.components and n not in dropped)

    @functools.cached_property
    def replaced(self) -> frozenset[str]:
        """Components that the script puts something of its own in the place of (``pipe.unet = TracedUNet()``)."""
        found = (o for o in self.use.optimisations if "value" in o.arguments and "." not in o.method)
        return frozenset(o.method for o in found if o.arguments["value"].text != "None")

    @property
    def bare(self) -> str | None:
        """What a pipeline would call the bare model of the script, when it is one that runs steps."""
        facts = model_facts(self.use.class_name) if self.use.kind == "model" else None
        if facts is None or facts.vae is not None or not (facts.blocks or facts.repeated_blocks):
            return None
        return "unet" if "UNet" in (self.use.class_name or "") else "transformer"

    def may_have(self, component: str) -> bool:
        """False when it is known that there is no such component."""
        if component in self.components:
            return True
        if component in self.replaced:
            return False
        if self.measurement is not None:
            return False
        return self.facts is None or component in self.facts.components

    def class_of(self, component: str) -> str | None:
        """Class of a component: measured, else loaded by itself, else the only one the pipeline takes."""
        if self.bare is not None:
            return self.use.class_name if component == self.bare else None
        if self.measurement is not None:
            for measured in self.measurement.components:
                if measured.name == component:
                    return measured.class_name
        for loaded in self.use.components:
            if loaded.name == component and loaded.class_name and not _AUTOMATIC.match(loaded.class_name):
                return loaded.class_name
        classes = self.facts.components.get(component, ()) if self.facts else ()
        return classes[0] if len(classes) == 1 else None

    def model(self, component: str) -> ModelFacts | None:
        return model_facts(self.class_of(component))

    def is_transformers(self, component: str) -> bool:
        """The component is a model of transformers, not of diffusers."""
        return self.model(component) is None and component.startswith(("text_encoder", "image_encoder", "prompt_enh"))

    @property
    def vae(self) -> VaeFacts | None:
        found = self.model("vae")
        return found.vae if found else None

    @property
    def upcasts_vae(self) -> bool:
        """The pipeline (maybe) converts its VAE to float32 while it works: one in float16 while it decodes, one of any
        dtype while it encodes a picture. A VAE mended for float16 stays."""
        own = next((c.model.value for c in self.use.components if c.name == "vae"), None)
        if self.facts is None or (isinstance(own, str) and "fp16-fix" in own):
            return False
        dtype = self.compute_dtype("vae")
        while_encoding = self.facts.upcasts_pictures and dtype != "float32"
        return while_encoding or (self.facts.upcasts_vae and dtype in ("float16", None))

    @functools.cached_property
    def denoisers(self) -> tuple[str, ...]:
        """The components that run once per step, those that are surely there."""
        names = dict.fromkeys(self.facts.denoisers if self.facts is not None else ())
        names |= dict.fromkeys(n for n in DENOISERS if n in self.components)
        return tuple(n for n in names if n in self.components)

    @functools.cached_property
    def text_encoders(self) -> tuple[str, ...]:
        return tuple(n for n in self.components if n.startswith("text_encoder"))

    def casting_breaks(self, component: str) -> bool:
        """Layerwise casting makes this component fail: its forward reads the dtype of its own weights."""
        return self.class_of(component) in BROKEN_TEXT_ENCODERS

    def reads_dtype(self, component: str) -> bool:
        """The pipeline makes tensors in the dtype in which this component's weights are stored."""
        return self.facts is not None and component in self.facts.reads_dtype

    def planned(self, name: str) -> Application | None:
        """The application of that technique in the strategy under consideration."""
        return next((a for a in self.strategy.applications if a.technique == name), None)

    # -- versions ------------------------------------------------------------------------------------------------

    def version(self, distribution: str) -> tuple[int, ...] | None:
        return parse_version(self.versions.get(distribution))

    def older(self, distribution: str, bound: str) -> bool:
        """The installed version is known and below ``bound``."""
        installed, limit = self.version(distribution), parse_version(bound)
        return installed is not None and limit is not None and installed < limit

    def missing(self, distribution: str) -> bool:
        """Known not to be installed."""
        return distribution in self.versions and not self.versions[distribution]

    @property
    def dtype_keyword(self) -> str:
        """``dtype`` where pipelines know it and warn about the old name, else ``torch_dtype``.

        Before 0.40 a pipeline ignores ``dtype`` with a mere warning and loads float32; so ``torch_dtype``, which
        still works everywhere, is written while the version is not known.
        """
        written = self.use.load_arguments
        if "torch_dtype" in written or ("dtype" in written and not self.older("diffusers", "0.40")):
            return "torch_dtype" if "torch_dtype" in written else "dtype"
        installed = self.version("diffusers")
        return "dtype" if installed is not None and installed >= (0, 40) else "torch_dtype"

    def compute_dtype(self, component: str) -> str | None:
        """What the component computes in, by the strategy or the script: ``bfloat16``, ``float16`` or ``float32``
        (the default of a load without a dtype); None where that is decided at run time."""
        planned = self.planned("dtype")
        if planned is not None:
            return "float16" if planned.components == ("fp16",) else "bfloat16"
        value = self._written_dtype(component).value
        if isinstance(value, dict):
            value = value.get(component, value.get("default", "float32"))
        name = str(value).removeprefix("torch.")
        return "float32" if name == "auto" else name if name in ("float16", "bfloat16", "float32") else None

    def dtype_as_written(self, component: str) -> str | None:
        """The expression that decides the dtype at run time, when it is a mere name that can be repeated."""
        text = self._written_dtype(component).text
        return text if text is not None and all(part.isidentifier() for part in text.split(".")) else None

    def _written_dtype(self, component: str) -> Known:
        """Of the last move of the pipeline that names one, else of the component's own load, else of the pipeline's."""
        moves = [p.dtype for p in self.use.placements if p.target in ("", self.use.variable) and p.dtype.text]
        own = [c.dtype for c in self.use.components if c.name == component]
        return [self.use.dtype, *own, *moves][-1]

    @property
    def large_text_encoders(self) -> tuple[str, ...]:
        """Text encoders that weigh something: measured over 1 GiB, or of a class that is no small CLIP."""
        if self.measurement is not None:
            sizes = {c.name: c.loaded_bytes for c in self.measurement.components}
            return tuple(n for n in self.text_encoders if sizes.get(n, 0) >= GIB)
        return tuple(n for n in self.text_encoders if not (self.class_of(n) or "CLIP").startswith("CLIP"))

    # -- the call ------------------------------------------------------------------------------------------------

    def argument(self, name: str) -> Any:
        """Value of a keyword of the first call, None when not written or not known."""
        if self.measurement is not None and name in self.measurement.call:
            return self.measurement.call[name]
        for call in self.use.calls:
            if name in call.arguments:
                return call.arguments[name].value
        return None

    @property
    def image_side(self) -> int | None:
        """The longer side of the picture in pixels; None when it is not written."""
        sides = [v for v in (self.argument("height"), self.argument("width")) if isinstance(v, int)]
        return max(sides, default=None)

    @property
    def images(self) -> int | None:
        """Pictures (or videos) per call, prompts times copies; None when the text does not tell."""
        copies = self.argument("num_images_per_prompt") or self.argument("num_videos_per_prompt") or 1
        prompt = self.argument("prompt")
        if prompt is None and self.use.calls and self.use.calls[0].positional:
            prompt = self.use.calls[0].positional[0].value
        prompts = len(prompt) if isinstance(prompt, list | tuple) else 1 if isinstance(prompt, str) else None
        if not isinstance(copies, int):
            return None
        return copies * prompts if prompts is not None else copies

    @property
    def is_video(self) -> bool:
        return bool(self.facts and "num_frames" in self.facts.call)


def recorded() -> dict[str, str | None]:
    """The versions that the facts rest on."""
    return {"diffusers": recorded_version()}


def _is_part(class_name: str) -> bool:
    return bool(re.search(r"Tokenizer|Scheduler|Processor|FeatureExtractor", class_name))
