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
    """JSON scalar, list or object; None with certainty ``unknown`` when the text does not tell.

    A dtype is its bare name (``bfloat16``), a device a string (``cuda:0``). A library object is
    ``{"class": "BitsAndBytesConfig", "module": "diffusers", "positional": [...], "arguments": {...}}``. None inside a
    list or such an object stands for an element that is not known.
    """
    certainty: Certainty = "unknown"
    """``literal``: written there; ``derived``: followed through a constant, option default or f-string;
    ``default``: the library's default applies because nothing is written; ``unknown``."""
    text: str | None = None
    """The expression as written."""
    line: int | None = None
    span: Span | None = None
    """Where the expression stands; None when nothing is written."""
    keyword: Span | None = None
    """``name=expression`` when it was written as a keyword argument."""
    alternatives: tuple[Any, ...] = ()
    """The values it can take when there are several (loop over a list, branches); ``value`` is then None."""


class Loaded(Value):
    """A component that is loaded by itself and passed into a pipeline, or an adapter."""

    name: str
    """The keyword it is passed as (``transformer``, ``vae``), or the variable for a bare model."""
    variable: str | None = None
    class_name: str | None = None
    library: str | None = None
    """Top-level package of the class: ``diffusers``, ``transformers``; None when it is not known."""
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
    part: str | None = None
    """Component of the pipeline that is meant, whatever it is called there: ``vae``; empty for the pipeline itself."""
    span: Span
    """The whole expression ``x.to(...)``; for ``device_map`` the keyword argument."""
    statement: Span | None = None
    condition: str | None = None
    """The tests it stands under, as written; None when it always runs."""
    runs: bool | None = True
    """With option defaults followed and a CUDA card present: whether those tests hold; None when not known."""
    order: int = 0
    """Position in the order in which the script's loads, placements, techniques and calls would run."""


class Optimisation(Value):
    """A memory or speed technique that the script already uses."""

    method: str
    """The call or assignment target: ``enable_model_cpu_offload``, ``vae.enable_tiling``, ``torch.compile`` ..."""
    target: str
    arguments: dict[str, Known] = {}
    """Keywords by name, positional arguments by number (``"0"``); ``"value"`` for an assignment."""
    part: str | None = None
    """As for :class:`Placement`."""
    span: Span
    statement: Span | None = None
    condition: str | None = None
    """As for :class:`Placement`."""
    runs: bool | None = True
    order: int = 0


class Adapter(Value):
    """LoRA, textual inversion or IP-Adapter weights loaded into a pipeline."""

    kind: Literal["lora", "ip_adapter", "textual_inversion"]
    model: Known = Known()
    arguments: dict[str, Known] = {}
    span: Span
    method: str | None = None
    """The call that loads it: ``load_lora_weights``, ..."""
    target: str | None = None
    statement: Span | None = None
    condition: str | None = None
    """As for :class:`Placement`."""
    runs: bool | None = True
    order: int = 0


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
    pictures: bool = False
    """Its result is taken as ``call(...).images``, once and unconditionally, in a statement with lines of its own: the
    call can be repeated for fewer pictures at a time, and these be joined."""
    targets: tuple[str, ...] = ()
    """The names that its result is given, or that it is unpacked into."""
    attribute: str | None = None
    """What of its result the name is given: ``image_embeds`` of ``x = call(...).image_embeds``."""
    no_grad: bool | None = None
    """Inside ``torch.no_grad`` / ``inference_mode``; pipelines bring their own."""
    autocast: bool = False
    attention: tuple[str, ...] = ()
    """The attention kernels that a ``with`` block around it allows: ``flash``, ``efficient``, ``cudnn``, ``math``, or
    ``backend:NAME`` for one of diffusers' own; empty where none says."""
    span: Span
    statement: Span | None = None
    scope: str = ""
    """Dotted name of the function it stands in, empty at module level."""
    condition: str | None = None
    """As for :class:`Placement`."""
    runs: bool | None = True
    order: int = 0


class PipelineUse(Value):
    """One pipeline (or bare model) of the script and everything that is done with it."""

    variable: str
    """``pipe``, ``self.pipe``, ..."""
    kind: Literal["pipeline", "model"] = "pipeline"
    class_name: str | None = None
    """As written, aliases resolved: ``FluxPipeline``, ``AutoPipelineForText2Image``, ``DiffusionPipeline``."""
    library: str | None = None
    """Top-level package of the class; None when it is not imported in the script."""
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
    part_calls: tuple[Call, ...] = ()
    """Calls of parts and helpers, not of the pipeline itself: ``pipe.vae.decode``, ``pipe.encode_prompt``."""
    load_span: Span
    """The expression that loads, placement chain excluded."""
    load_statement: Span
    bound_statement: Span | None = None
    """The statement that gives it the name ``variable``: usually ``load_statement``; the call of the user's own
    loading function where that function returns the pipeline unnamed; None when it never gets a name."""
    scope: str = ""
    """Dotted name of the function or class it lives in, empty at module level."""
    trust_remote_code: bool = False
    condition: str | None = None
    """The tests that the load stands under, as for :class:`Placement`."""
    runs: bool | None = True
    order: int = 0
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
    settings: tuple[Optimisation, ...] = ()
    """Process-wide switches: ``torch.backends.cuda.matmul.allow_tf32 = True``, ``torch.cuda.empty_cache()``, ..."""
    environment: dict[str, Known] = {}
    """Environment variables that the script sets."""
    training: bool = False
    no_grad_missing: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def main(self) -> PipelineUse | None:
        """The pipeline that is called; the first one when none visibly is. Bare models come last."""

        def order(use: PipelineUse) -> tuple[bool, bool, bool]:
            return use.kind != "pipeline", use.runs is False, not use.calls

        return min(self.pipelines, key=order, default=None)
