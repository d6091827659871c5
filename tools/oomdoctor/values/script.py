"""What a script does, as far as its text tells: nothing of it was executed."""

from __future__ import annotations

from typing import Any, Literal

from oomdoctor.values.base import Value

Certainty = Literal["literal", "derived", "default", "unknown"]


class Span(Value):
    """A range of the source: 1-based lines, 0-based columns in characters, end exclusive (as libcst counts)."""

    line: int
    column: int
    end_line: int
    end_column: int


class Known(Value):
    """A fact read from the script, and how sure it is."""

    value: Any = None
    """JSON scalar or list; None with certainty ``unknown`` when the text does not tell."""
    certainty: Certainty = "unknown"
    """``literal``: written there; ``derived``: followed through a constant, option default or f-string;
    ``default``: the library's default applies because nothing is written; ``unknown``."""
    text: str | None = None
    """The expression as written."""
    line: int | None = None


class Loaded(Value):
    """A component that is loaded by itself and passed into a pipeline, or an adapter."""

    name: str
    """The keyword it is passed as (``transformer``, ``vae``), or the variable for a bare model."""
    variable: str | None = None
    class_name: str | None = None
    loader: str | None = None
    """``from_pretrained``, ``from_single_file``, ``from_config``, ``constructor`` or None."""
    model: Known = Known()
    subfolder: Known = Known()
    dtype: Known = Known()
    arguments: dict[str, Known] = {}
    span: Span | None = None


class Placement(Value):
    """One ``.to(...)``, ``.cuda()`` or ``device_map``."""

    kind: Literal["to", "cuda", "device_map", "constructor"]
    device: Known = Known()
    dtype: Known = Known()
    chained: bool = False
    """Part of the expression that loads (``from_pretrained(...).to("cuda")``)."""
    target: str
    """Variable or attribute it is applied to, e.g. ``pipe`` or ``pipe.vae``."""
    span: Span


class Optimisation(Value):
    """A memory or speed technique that the script already uses."""

    method: str
    """The call or assignment target: ``enable_model_cpu_offload``, ``vae.enable_tiling``, ``torch.compile`` ..."""
    target: str
    arguments: dict[str, Known] = {}
    span: Span
    statement: Span | None = None


class Adapter(Value):
    """LoRA, textual inversion or IP-Adapter weights loaded into a pipeline."""

    kind: Literal["lora", "ip_adapter", "textual_inversion"]
    model: Known = Known()
    arguments: dict[str, Known] = {}
    span: Span


class Call(Value):
    """A call of the pipeline (or of a bare model)."""

    pipeline: str
    """Variable or attribute that is called."""
    arguments: dict[str, Known] = {}
    """Every keyword written at the call: height, width, num_frames, num_inference_steps, ..."""
    positional: tuple[Known, ...] = ()
    in_loop: bool = False
    loop_line: int | None = None
    kept_on_device: bool = False
    """Its result is appended to something while it may still be on the card."""
    no_grad: bool | None = None
    """Inside ``torch.no_grad`` / ``inference_mode``; pipelines bring their own."""
    autocast: bool = False
    span: Span
    statement: Span | None = None


class PipelineUse(Value):
    """One pipeline (or bare model) of the script and everything that is done with it."""

    variable: str
    """``pipe``, ``self.pipe``, ..."""
    kind: Literal["pipeline", "model"] = "pipeline"
    class_name: str | None = None
    """As written, aliases resolved: ``FluxPipeline``, ``AutoPipelineForText2Image``, ``DiffusionPipeline``."""
    loader: str | None = None
    """``from_pretrained``, ``from_single_file``, ``from_pipe``, ``constructor`` or None."""
    from_variable: str | None = None
    """For ``from_pipe``: the pipeline it shares components with."""
    model: Known = Known()
    dtype: Known = Known()
    variant: Known = Known()
    load_arguments: dict[str, Known] = {}
    components: tuple[Loaded, ...] = ()
    placements: tuple[Placement, ...] = ()
    optimisations: tuple[Optimisation, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    calls: tuple[Call, ...] = ()
    load_span: Span
    """The expression that loads, placement chain excluded."""
    load_statement: Span
    scope: str = ""
    """Dotted name of the function or class it lives in, empty at module level."""
    trust_remote_code: bool = False
    uncertain: tuple[str, ...] = ()
    """What could not be followed, in words."""


class Script(Value):
    """A diffusers script, read."""

    path: str | None = None
    sha256: str
    is_notebook: bool = False
    pipelines: tuple[PipelineUse, ...] = ()
    models: tuple[Loaded, ...] = ()
    """Models loaded by themselves and not (visibly) passed to a pipeline."""
    imports: dict[str, str] = {}
    """Name in the script -> qualified name it stands for (``np`` -> ``numpy``)."""
    allocator_settings: dict[str, str] = {}
    """``PYTORCH_CUDA_ALLOC_CONF`` and friends when the script sets them."""
    training: bool = False
    no_grad_missing: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def main(self) -> PipelineUse | None:
        """The pipeline that is called; the first one when none visibly is."""
        called = [p for p in self.pipelines if p.calls]
        candidates = called or list(self.pipelines)
        return candidates[0] if candidates else None
