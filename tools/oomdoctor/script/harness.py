"""The *call run*: a script of our own that loads, places, optimises and calls as the user's script does.

It holds classes of diffusers and its companions, ids and literals; no line of the user's code. What cannot be said
that way is left out, with a comment that says so. Code from repositories (``trust_remote_code``, ``custom_pipeline``)
never gets in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from oomdoctor.errors import InputError, NoPipeline, NotApplicable, OomDoctorError
from oomdoctor.script import libraries
from oomdoctor.script.harness_call import EMBEDDINGS, calling, encoding, handed, results_of
from oomdoctor.script.harness_load import dtype_argument, keywords, load_lines, owner_name, size
from oomdoctor.script.writing import Writer, comment, is_name
from oomdoctor.values import Adapter, Call, Known, Optimisation, PipelineUse, Placement, Script

_HEAD = (
    "# Generated from a reading of the script: classes, ids and literals only, none of the script's own code.",
)  # fmt: skip
_FUNCTIONS = {"apply_group_offloading": "diffusers.hooks", "apply_layerwise_casting": "diffusers.hooks",
              "apply_first_block_cache": "diffusers.hooks", "apply_faster_cache": "diffusers.hooks",
              "apply_pyramid_attention_broadcast": "diffusers.hooks",
              "quantize_": "torchao.quantization", "dispatch_model": "accelerate"}  # fmt: skip
_RELEASING = {"torch.cuda.empty_cache": "torch.cuda.empty_cache()", "gc.collect": "__import__('gc').collect()"}
_SIZES = ("height", "width", "num_frames", "num_images_per_prompt", "num_videos_per_prompt", "batch_size",
          "video_length", "frame_num")  # fmt: skip


@dataclass
class _Lines:
    """The body being written."""

    writer: Writer = field(default_factory=Writer)
    body: list[tuple[int, list[str]]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    """Canonical name of each use, by its identity."""
    results: dict[str, str] = field(default_factory=dict)
    """Names of the script that hold what a pipeline made -> what holds it here."""
    earliest: int = 0
    """Order of the load that is being written: what the script did to a component before comes after it here."""

    def add(self, order: int, *lines: str) -> None:
        self.body.append((max(order, self.earliest), list(lines)))

    def text(self) -> str:
        lines = [line for _, group in sorted(self.body, key=lambda entry: entry[0]) for line in group]
        return "\n".join([*_HEAD, *self.writer.import_lines(), "", *lines, ""])


def harness(script: Script, use: PipelineUse | None = None) -> str:
    """Python text that does with the pipelines of ``script`` what the script does, and nothing else.

    ``use`` restricts it to one pipeline (and those it shares components with); without it all pipelines that run are
    loaded, for they share the card. Of several calls of a pipeline the largest is made, once.

    Raises :class:`NoPipeline` without a pipeline, :class:`UnknownModel` when the text does not tell what is loaded,
    :class:`NotApplicable` for bare models and for classes that are not of diffusers.
    """
    wanted = [use] if use is not None else run_together(script)
    if not wanted:
        raise NoPipeline(
            "No diffusers pipeline is loaded in this script, so there is nothing to run. Hand over the file with the "
            "from_pretrained(...) line."
        )
    lines = _Lines()
    main = use or script.main
    for each in _with_sources(script, wanted):
        try:
            _pipeline(lines, script, each, call=any(each is w for w in wanted))
        except OomDoctorError as error:
            if each is main:
                raise
            lines.add(each.order, comment(f"left out: {each.variable}: {error}"))
    lines.earliest = 0
    for setting in script.settings:
        if setting.method in _RELEASING and setting.runs is not False:
            lines.add(setting.order, _RELEASING[setting.method])
    return lines.text()


def run_together(script: Script) -> list[PipelineUse]:
    """The pipelines that share the card in a call run of the script."""
    wanted = [u for u in script.pipelines if u.kind == "pipeline" and u.runs is not False]
    return wanted or [u for u in (script.main,) if u is not None]


def harness_for_model(class_name: str, model: str, dtype: str | None, call: dict[str, object]) -> str:
    """A call run without a script: load ``model`` as ``class_name``, put it on the card, call it with ``call``.

    ``dtype`` is a bare name (``bfloat16``). None as a prompt or image in ``call`` asks for a stand-in.
    Raises :class:`InputError` when a name is not one, or a value is not a literal.
    """
    if not is_name(class_name) or "." in class_name:
        raise InputError(f"{class_name!r} is not the name of a pipeline class; write it like FluxPipeline.")
    if dtype is not None and dtype not in libraries.DTYPES:
        raise InputError(f"{dtype!r} is not a dtype; write it like bfloat16.")
    writer = Writer()
    writer.use("diffusers", class_name)
    parts = []
    for name, value in call.items():
        written = writer.stand_in(name) if value is None else writer.expression(value, name)
        if written is None or not is_name(name):
            raise InputError(f"the argument {name}={value!r} cannot be written into a call run; give a plain value.")
        parts.append(f"{name}={written}")
    parts += [f"{n}={made}" for n, made in EMBEDDINGS.get(class_name, {}).items() if n not in call]
    load = f"{class_name}.from_pretrained({model!r}{f', torch_dtype=torch.{dtype}' if dtype else ''})"
    body = [f"pipe = {load}", 'pipe.to("cuda")', f"pipe({', '.join(parts)})"]
    return "\n".join([*_HEAD, *writer.import_lines(), "", *body, ""])


def _with_sources(script: Script, wanted: list[PipelineUse]) -> list[PipelineUse]:
    """The uses, each after the pipelines whose components it takes."""
    out: list[PipelineUse] = []

    def visit(use: PipelineUse) -> None:
        if any(use is seen for seen in out):
            return
        names = [use.from_variable, *(owner for part in use.components if (owner := owner_name(part)))]
        for name in dict.fromkeys(n for n in names if n):
            source = _named(script, name, use)
            if source is not None:  # always an earlier one, so this ends
                visit(source)
        out.append(use)

    for use in wanted:
        visit(use)
    return out


def _named(script: Script, name: str, before: PipelineUse) -> PipelineUse | None:
    found = [other for other in script.pipelines if other.variable == name and other.order < before.order]
    return max(found, key=lambda other: other.order, default=None)


def _pipeline(lines: _Lines, script: Script, use: PipelineUse, *, call: bool) -> None:
    if use.kind != "pipeline":
        raise NotApplicable(
            f"`{use.variable}` is a bare {use.class_name}, not a pipeline: what it is called with is the script's own "
            "code. Run the script itself instead (`oom-doctor run SCRIPT`)."
        )
    if not use.class_name or not is_name(use.class_name):
        raise NoPipeline(f"line {use.load_span.line}: the class of the pipeline is not known. Load it by its class.")
    if use.library not in (None, "diffusers", libraries.UNRESOLVED):
        raise NotApplicable(
            f"line {use.load_span.line}: {use.class_name} is a class of `{use.library}`, not of diffusers; a call run "
            "uses classes of diffusers only. Run the script itself instead (`oom-doctor run SCRIPT`)."
        )
    pipe = "pipe" if not lines.names else f"pipe_{len(lines.names) + 1}"
    lines.earliest = use.order

    def canonical(name: str | None) -> str | None:
        source = _named(script, name, use) if name else None
        return lines.names.get(id(source)) if source is not None else None

    lines.add(use.order, *load_lines(lines.writer, use, pipe, canonical))
    lines.names[id(use)] = lines.writer.pipe = pipe
    taken = _conditions(use)
    for placement in use.placements:
        if placement.kind != "device_map" and _runs(placement, taken):
            _place(lines, pipe, placement)
    for optimisation in use.optimisations:
        if _runs(optimisation, taken):
            _optimise(lines, pipe, optimisation)
    for adapter in use.adapters:
        if _runs(adapter, taken):
            _adapter(lines, pipe, adapter)
    largest = _largest(use.calls)
    if call and largest is not None:
        _call(lines, script, use, pipe, largest)


def _call(lines: _Lines, script: Script, use: PipelineUse, pipe: str, call: Call) -> None:
    """The call, what encodes its prompt, and a name for its result where another pipeline is given that."""
    order, made, encoded = encoding(lines.writer, pipe, use.part_calls)
    if made and any(k.text in encoded for k in call.arguments.values()):
        lines.add(order, *made)
    text = calling(lines.writer, pipe, call, encoded, lines.results, EMBEDDINGS.get(use.class_name or "", {}))
    results = results_of(call, f"{pipe}_result")
    others = (other for other in script.pipelines if other is not use)
    if any(handed(k, results) for other in others for c in other.calls for k in c.arguments.values()):
        text[-1] = text[-1].replace(f"{pipe}(", f"{pipe}_result = {pipe}(", 1)
        lines.results |= results
    lines.add(call.order, *text)


def _conditions(use: PipelineUse) -> set[str]:
    everything: list[Placement | Optimisation | Adapter] = [*use.placements, *use.optimisations, *use.adapters]
    return {item.condition for item in everything if item.condition is not None and item.runs is None}


def _runs(item: Placement | Optimisation | Adapter, conditions: set[str]) -> bool:
    """Of two branches whose test is not known, the one without the extra measure (``else``) counts."""
    if item.runs is False:
        return False
    return not (item.runs is None and item.condition is not None and f"not ({item.condition})" in conditions)


def _path(pipe: str, part: str | None) -> str | None:
    """A part of the pipeline in the generated code; None when it has no plain name."""
    if not part:
        return pipe
    return f"{pipe}.{part}" if is_name(part) else None


def _place(lines: _Lines, pipe: str, placement: Placement) -> None:
    path = _path(pipe, placement.part)
    if path is None:
        return
    device = placement.device.value if isinstance(placement.device.value, str) else None
    given = []
    if device is not None or placement.dtype.value is None:
        given.append(repr(device or "cuda"))
    dtype = lines.writer.expression(placement.dtype.value, "dtype") if placement.dtype.value is not None else None
    if dtype is not None:
        given.append(f"dtype={dtype}")
    lines.add(placement.order, f"{path}.to({', '.join(given)})")


def _optimise(lines: _Lines, pipe: str, used: Optimisation) -> None:
    notes: list[str] = []
    lost = comment(f"left out: `{used.method}`, line {used.span.line}")
    path = _path(pipe, used.part)
    last = libraries.last(used.method)
    named = {n: k for n, k in used.arguments.items() if not n.isdigit()}
    positional = [lines.writer.expression(k.value) for n, k in used.arguments.items() if n.isdigit()]
    if path is None or not is_name(path) or None in positional:
        lines.add(used.order, lost)
        return
    given = ", ".join([*(p for p in positional if p), *keywords(lines.writer, named, notes, skip=set())])
    if used.method.startswith("del"):
        line = f"del {path}"
    elif used.method == "torch.compile":
        line = f"{path} = torch.compile({', '.join(filter(None, [path, given]))})"
    elif used.method in _FUNCTIONS:
        line = f"{lines.writer.use(_FUNCTIONS[used.method], used.method)}({', '.join(filter(None, [path, given]))})"
    elif "value" in used.arguments and is_name(used.method):
        value = used.arguments["value"]
        written = lines.writer.expression(value.value, last) if value.certainty != "unknown" else None
        line = f"{path}.{last} = {written}" if written is not None else lost
    elif (libraries.is_technique(last) or last == "to") and used.method not in libraries.FUNCTIONS and is_name(last):
        line = f"{path}.{last}({_with_dtypes(lines.writer, named, given, last)})"
    else:
        line = lost
    lines.add(used.order, *notes, line)


def _with_dtypes(writer: Writer, named: dict[str, Known], given: str, method: str) -> str:
    """``load_components(torch_dtype=...)`` needs the dtype that loading leaves to its own argument."""
    dtype = named.get("torch_dtype", named.get("dtype"))
    extra = dtype_argument(writer, dtype) if dtype is not None and method == "load_components" else []
    return ", ".join(filter(None, [given, *extra]))


def _adapter(lines: _Lines, pipe: str, adapter: Adapter) -> None:
    if adapter.method not in libraries.ADAPTERS or not isinstance(adapter.model.value, str | list):
        lines.add(
            adapter.order, comment(f"left out: {adapter.kind}, line {adapter.span.line}, which is not told by the text")
        )
        return
    notes: list[str] = []
    names = ("pretrained_model_name_or_path_or_dict", *libraries.MODEL_KEYWORDS)
    given = keywords(lines.writer, adapter.arguments, notes, skip=set(names))
    model = lines.writer.expression(adapter.model.value)
    lines.add(adapter.order, *notes, f"{pipe}.{adapter.method}({', '.join([model or repr(''), *given])})")


def _largest(calls: Iterable[Call]) -> Call | None:
    """The call with the most pixels, frames and pictures; what a call leaves out counts as in the others."""
    runs = [call for call in calls if call.runs is not False]
    usual = {name: max((_number(call, name) for call in runs), default=0.0) for name in _SIZES}

    def work(call: Call) -> float:
        total = 1.0
        for name in _SIZES:
            total *= _number(call, name) or usual[name] or 1.0
        prompt = call.arguments.get("prompt", call.positional[0] if call.positional else Known()).value
        return total * (len(prompt) or 1 if isinstance(prompt, list) else 1)

    return max(runs, key=work, default=None)


def _number(call: Call, name: str) -> float:
    known = call.arguments.get(name, Known())
    return max(size(value) for value in (known.alternatives or (known.value,)))
