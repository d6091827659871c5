"""Pipelines and models that come into being: ``from_pretrained``, ``from_single_file``, ``from_pipe``, constructors."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from oomdoctor.script import arguments as args
from oomdoctor.script import libraries
from oomdoctor.script.arguments import Argument, Arguments
from oomdoctor.script.domain import Record, Ref, Sequence, UserClass, choices, refs
from oomdoctor.script.known import default
from oomdoctor.values import Known, Loaded, Placement

if TYPE_CHECKING:
    from oomdoctor.script.interpreter import Interpreter

_DTYPE = ("dtype", "torch_dtype")
_SHARING = frozenset({"from_pipe"})


def load(reader: Interpreter, qualified: str, loader: str, node: ast.Call, given: Arguments) -> Ref:
    """The record of what ``Class.loader(...)`` (or ``Class(...)``, loader ``constructor``) makes.

    ``qualified`` names the class. Reading the same expression again with the same model gives the same record.
    """
    kind = libraries.kind_of_class(qualified) or "model"
    model = _model(reader, loader, given)
    told = [args.fact(reader, given.keywords[n]).value for n in (*_DTYPE, "subfolder") if n in given.keywords]
    key = (id(node), f"{model.value} {told}", qualified)
    if key in reader.by_node:
        return Ref(reader.by_node[key])
    module, _, name = qualified.rpartition(".")
    condition, runs = reader.condition()
    record = Record(
        kind, name, module.removeprefix(libraries.UNRESOLVED), loader, reader.source.span(node),
        reader.statement_span(), reader.scope.name, reader.tick(), condition=condition, runs=runs,
    )  # fmt: skip
    reader.by_node[key] = record
    reader.records.append(record)
    record.model = model
    record.branches = tuple(reader.context.branches)
    _arguments(reader, record, given, skip_first=loader not in ("constructor",))
    _device_map(reader, record, given)
    _share(record, given, loader)
    record.dtype = _dtype(record)
    record.variant = record.arguments.get("variant", default(None))
    record.subfolder = record.arguments.get("subfolder", default(None))
    record.trust_remote_code = record.arguments.get("trust_remote_code", Known()).value is True
    _doubts(reader, record, qualified, node, given)
    return Ref(record)


def _model(reader: Interpreter, loader: str, given: Arguments) -> Known:
    if loader in ("from_pretrained", "from_single_file", "init_pipeline"):
        first = given.get(0, *libraries.MODEL_KEYWORDS)
        if first is not None:
            return args.fact(reader, first)
    return Known()


def _arguments(reader: Interpreter, record: Record, given: Arguments, *, skip_first: bool) -> None:
    for i, positional in enumerate(given.positional):
        if i == 0 and skip_first:
            continue
        if not add_components(reader, record, str(i), positional):
            record.arguments[str(i)] = args.fact(reader, positional)
    for name, argument in given.keywords.items():
        if name in libraries.MODEL_KEYWORDS and record.loader != "constructor":
            continue
        if not add_components(reader, record, name, argument):
            record.arguments[name] = args.fact(reader, argument)


def add_components(reader: Interpreter, record: Record, name: str, argument: Argument) -> bool:
    """Note the models that an argument hands over; whether there were any."""
    found = [r for r in refs(argument.value) if not (r.path and r.path[-1] == "config")]
    for ref in found:
        if ref.path:
            text = args.fact(reader, argument).text
            part = Loaded(name=name, variable=text, span=reader.source.span(argument.node))
            record.components.append((name, part))
            continue
        for model in _wrapped(ref.record):
            if model is not record:
                record.components.append((name, model))
                model.owners.append(record)
    if not found and isinstance(argument.value, Sequence) and any(refs(i) for i in argument.value.items):
        return True
    return bool(found)


def _wrapped(record: Record) -> list[Record]:
    """The models inside a ``MultiControlNetModel([...])``, which pipelines take as a plain list, too."""
    if record.loader == "constructor" and "Multi" in record.class_name:
        inner = [part for _, part in record.components if isinstance(part, Record)]
        if inner:
            record.owners.append(record)  # it holds no weights of its own
            return inner
    return [record]


def _device_map(reader: Interpreter, record: Record, given: Arguments) -> None:
    argument = given.keywords.get("device_map")
    if argument is None:
        return
    fact = args.fact(reader, argument)
    if fact.certainty != "unknown" and fact.value is None:
        return
    condition, runs = reader.condition()
    span = fact.keyword or reader.source.span(argument.node)
    record.placements.append(
        Placement(kind="device_map", device=fact, chained=True, target="", part="", span=span,
                  statement=record.load_statement, condition=condition, runs=runs, order=reader.tick())
    )  # fmt: skip


def _share(record: Record, given: Arguments, loader: str) -> None:
    """``X.from_pipe(pipe)`` and ``X(**pipe.components)`` use the components of another pipeline."""
    sources = [a.value for a in given.positional[:1]] if loader in _SHARING else []
    if "pipeline" in given.keywords and loader in _SHARING:
        sources.append(given.keywords["pipeline"].value)
    for value in [*sources, *given.spread]:
        for choice in choices(value):
            if isinstance(choice, Ref) and choice.record is not record and (choice.path in ((), ("components",))):
                record.source = choice.record
    if record.source is None and loader == "constructor":
        record.source = _common_owner(given)
        return
    if record.source is not None:
        record.components = [c for c in record.components if c[1] is not record.source]
        if record in record.source.owners:
            record.source.owners.remove(record)
        given.unfollowed[:] = [n for n in given.unfollowed if not _spreads_components(n)]


def _common_owner(given: Arguments) -> Record | None:
    """The one pipeline that all parts are taken from: ``X(vae=pipe.vae, unet=pipe.unet)``."""
    owners = [r.record for a in given.keywords.values() for r in refs(a.value) if r.path and r.path[-1] != "config"]
    return owners[0] if len(owners) > 1 and all(owner is owners[0] for owner in owners) else None


def _spreads_components(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "components"


def _dtype(record: Record) -> Known:
    for name in _DTYPE:
        if name in record.arguments:
            return record.arguments[name]
    # `from_pipe` of a pipeline class casts everything to float32 unless told otherwise, shared components included;
    # the AutoPipelines and constructors leave the components as they are.
    shared = record.source is not None and (record.loader != "from_pipe" or record.class_name.startswith("Auto"))
    if shared and record.source is not None:
        inherited = record.source.dtype
        return Known(value=inherited.value, certainty="derived" if inherited.value else "unknown")
    if record.loader == "constructor" and record.kind == "pipeline":
        dtypes = {
            part.dtype.value
            for _, part in record.components
            if part.dtype.value is not None and not (isinstance(part, Record) and part.kind == "part")
        }
        return Known(value=dtypes.pop(), certainty="derived") if len(dtypes) == 1 else Known()
    # transformers decides by its version and the checkpoint; diffusers loads in float32 when nothing is said.
    return default(None if libraries.root(record.module) == "transformers" else "float32")


def _doubts(reader: Interpreter, record: Record, qualified: str, node: ast.Call, given: Arguments) -> None:
    root = libraries.root(qualified)
    line = node.lineno
    if root == libraries.UNRESOLVED:
        record.doubt(f"line {line}: `{record.class_name}` is not imported in this script; diffusers is assumed")
    elif record.kind == "pipeline" and root != "diffusers":
        record.doubt(f"line {line}: `{record.class_name}` comes from `{record.module}`, not from diffusers")
    first = node.func
    while isinstance(first, ast.Attribute):
        first = first.value
    if isinstance(first, ast.Name):
        cls = reader.scope.get(first.id)
        if isinstance(cls, UserClass):
            record.doubt(f"line {line}: `{cls.name}` is this script's own subclass of {record.class_name}")
        elif cls is not None and len(choices(cls)) > 1:
            record.doubt(f"line {line}: `{first.id}` can be one of several classes")
    for name in ("custom_pipeline", "custom_revision"):
        if name in record.arguments and record.arguments[name].value is not None:
            record.doubt(f"line {line}: {name} loads pipeline code from elsewhere, which was not read")
    for unfollowed in given.unfollowed:
        text = reader.source.excerpt(reader.source.span(unfollowed))
        record.doubt(f"line {line}: what `*{text}` adds could not be followed".replace("**", "*"))
    if record.loader in ("from_pretrained", "from_single_file") and record.model.certainty == "unknown":
        record.doubt(f"line {line}: the model is `{record.model.text or 'not given'}`, which the text does not tell")
