"""Calls: who is called decides what it means."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from oomdoctor.script import arguments as args
from oomdoctor.script import definitions, folding, libraries, library_calls, loads, options, uses
from oomdoctor.script.arguments import Arguments
from oomdoctor.script.domain import (
    UNKNOWN,
    Abstract,
    Bound,
    Const,
    Either,
    Made,
    Mapping,
    Method,
    Named,
    Options,
    Record,
    Ref,
    Result,
    Sequence,
    UserClass,
    UserFunction,
    UserObject,
    choices,
    join,
    refs,
)
from oomdoctor.script.expressions import evaluate

if TYPE_CHECKING:
    from oomdoctor.script.interpreter import Interpreter

_RUNNERS = frozenset({"to_thread", "submit", "run_in_executor", "partial", "run_in_threadpool", "run_sync", "Thread"})
_ADDERS = frozenset({"append", "extend", "add", "insert", "appendleft", "put", "put_nowait"})
_HARMLESS = frozenset({"print", "len", "type", "id", "isinstance", "hasattr", "getattr", "setattr", "repr", "str", "vars",
                       "dir", "callable", "iter", "next", "list", "tuple", "dict", "enumerate", "zip"})  # fmt: skip
_OFF = frozenset({"cpu", "numpy", "tolist", "item", "save", "show", "export"})


def call(reader: Interpreter, node: ast.Call) -> Abstract:
    """What a call gives; everything it tells about pipelines is noted on the way."""
    function = evaluate(reader, node.func)
    given = args.read(reader, node)
    if isinstance(node.func, ast.Attribute):
        _by_name(reader, node.func.attr, node, given)
    return join(_dispatch(reader, choice, node, given) for choice in choices(function))


def _dispatch(reader: Interpreter, function: Abstract, node: ast.Call, given: Arguments) -> Abstract:
    match function:
        case Ref():
            return uses.invoke(reader, function, node, given)
        case Named(qualified=qualified):
            return _library(reader, qualified, node, given)
        case UserFunction():
            return reader.call_function(function, given.values(), given.named())
        case Bound(function=method, instance=instance):
            return reader.call_function(method, [instance, *given.values()], given.named())
        case UserClass():
            return _construct(reader, function, node, given)
        case UserObject():
            method_ = definitions.lookup(function.cls, "__call__") or definitions.lookup(function.cls, "forward")
            if isinstance(method_, UserFunction):
                return reader.call_function(method_, [function, *given.values()], given.named())
        case Method(owner=owner, name=name):
            return _method(reader, owner, name, node, given)
    _handed_over(reader, node, given)
    return UNKNOWN


def _construct(reader: Interpreter, cls: UserClass, node: ast.Call, given: Arguments) -> Abstract:
    base = definitions.library_base(cls)
    if base and libraries.kind_of_class(base) == "pipeline":
        return loads.load(reader, base, "constructor", node, given)
    return reader.instantiate(cls, given.values(), given.named())


def class_attribute(cls: UserClass, name: str) -> Abstract:
    """``Class.name``; loaders are inherited from the library's class."""
    found = definitions.lookup(cls, name)
    if isinstance(found, UserFunction) and not found.is_static and cls.itself is not None:
        decorators = getattr(found.node, "decorator_list", [])
        if any(isinstance(d, ast.Name) and d.id == "classmethod" for d in decorators):
            return Bound(found, cls.itself)
        return found
    if found is not None:
        return folding.derived(found)
    base = definitions.library_base(cls)
    return Named(f"{base}.{name}") if base else UNKNOWN


def part(record: Record, path: tuple[str, ...], name: str) -> Abstract:
    """``pipe.name``."""
    if name in ("device", "_execution_device"):
        for placement in reversed(record.placements):
            if placement.device.value is not None and placement.runs is not False:
                return Const(placement.device.value, literal=False)
        return UNKNOWN
    if name == "dtype" and isinstance(record.dtype.value, str):
        return Named(f"torch.{record.dtype.value}")
    return Ref(record, (*path, name)[:12])


def _library(reader: Interpreter, qualified: str, node: ast.Call, given: Arguments) -> Abstract:
    head, _, name = qualified.rpartition(".")
    if name in libraries.LOADERS and libraries.kind_of_class(head):
        return loads.load(reader, head, name, node, given)
    if name in _RUNNERS and not libraries.kind_of_class(qualified):
        ran = _run_elsewhere(reader, name, node, given)
        if ran is not None:
            return ran
    kind = libraries.kind_of_class(qualified)
    if kind and libraries.root(qualified) in ("diffusers", "transformers", "optimum"):
        return loads.load(reader, qualified, "constructor", node, given)
    if libraries.OPTIMISERS.match(qualified):
        reader.training_line = reader.training_line or node.lineno
    if name in libraries.FUNCTIONS:
        applied = _technique(reader, qualified, node, given)
        if applied is not None:
            return applied
    known = library_calls.value(reader, qualified, given)
    if known is not None:
        return known
    if libraries.SETTINGS.match(qualified):
        if qualified in libraries.ATTENTION_CONTEXTS:  # noted where the block begins
            return Made(qualified, tuple(given.values()), given.named())
        uses.setting(reader, qualified, args.facts(reader, given), reader.source.span(node))
        return UNKNOWN
    if name not in _HARMLESS:
        _handed_over(reader, node, given)
    return Made(qualified, tuple(given.values()), given.named())


def _technique(reader: Interpreter, qualified: str, node: ast.Call, given: Arguments) -> Abstract | None:
    """A function applied to a pipeline or component; it hands the object back."""
    for argument in given.everything():
        found = [c for c in choices(argument.value) if isinstance(c, Ref)]
        if found:
            name = libraries.last(qualified)
            written = f"torch.{name}" if qualified in ("torch.compile", "torch.jit.trace", "torch.jit.script") else name
            for ref in found:
                uses.apply_function(reader, written, ref, argument, node, given)
            return argument.value
    return None


def _run_elsewhere(reader: Interpreter, name: str, node: ast.Call, given: Arguments) -> Abstract | None:
    """``asyncio.to_thread(pipe, prompt)``, ``executor.submit(generate, pipe)``: the call happens all the same."""
    rest = given.without_first() if name == "run_in_executor" else given
    target = rest.keywords.get("target") if name == "Thread" else rest.get(0)
    if target is None:
        return None
    results = []
    for choice in choices(target.value):
        if isinstance(choice, Ref):
            results.append(uses.invoke(reader, choice, node, rest.without_first(), target.node))
        elif isinstance(choice, UserFunction | Bound):
            results.append(_dispatch(reader, choice, node, rest.without_first()))
    return join(results) if results else None


def _by_name(reader: Interpreter, name: str, node: ast.Call, given: Arguments) -> None:
    """Methods that mean the same on whatever object."""
    if name == "backward":
        reader.training_line = reader.training_line or node.lineno
    elif name in _ADDERS:
        for value in given.values():
            reader.keep(value)


def _method(reader: Interpreter, owner: Abstract, name: str, node: ast.Call, given: Arguments) -> Abstract:
    if isinstance(owner, Options):
        return options.parser_method(owner, name, given.values(), given.named())
    if isinstance(owner, Result):
        leaves = name in _OFF or (name == "to" and any(folding.as_text(v) == "cpu" for v in given.values()))
        return UNKNOWN if leaves else owner
    if isinstance(owner, Sequence):
        return _list_method(reader, owner, name, given)
    if isinstance(owner, Mapping):
        return library_calls.mapping_method(owner, name, given, uncertain=bool(reader.context.loops))
    if isinstance(owner, Const):
        return library_calls.text_method(owner, name, given.values())
    if isinstance(owner, Made):
        return _made_method(reader, owner, name, node, given)
    _handed_over(reader, node, given)
    return UNKNOWN


def _list_method(reader: Interpreter, owner: Sequence, name: str, given: Arguments) -> Abstract:
    if name in _ADDERS and len(owner.items) < folding.MAX_ITEMS:
        for value in given.values()[-1:]:
            owner.items = owner.items + (value.items if name == "extend" and isinstance(value, Sequence) else [value])
        owner.open = owner.open or bool(reader.context.loops or reader.context.branches)
    elif name == "pop":
        return join(owner.items) if owner.items else UNKNOWN
    return UNKNOWN


def _made_method(reader: Interpreter, owner: Made, name: str, node: ast.Call, given: Arguments) -> Abstract:
    kind = libraries.last(owner.qualified)
    if name in _RUNNERS:
        ran = _run_elsewhere(reader, name, node, given)
        if ran is not None:
            return ran
    if name == "manual_seed":
        seed = given.get(0, "seed")
        return Made(owner.qualified, owner.positional, {**owner.keywords, "seed": seed.value if seed else UNKNOWN})
    if name == "init_pipeline" and "Blocks" in owner.qualified:
        return loads.load(reader, "diffusers.ModularPipeline", "init_pipeline", node, given)
    if name in ("prepare", "unwrap_model") and kind in libraries.ACCELERATORS:
        values = given.values()
        return values[0] if len(values) == 1 else Sequence(values)
    if kind in libraries.PATHS:
        return library_calls.path_method(owner, name, given.values())
    if libraries.is_technique(name) and not any(refs(v) for v in given.values()):
        return UNKNOWN
    _handed_over(reader, node, given)
    return Made(f"{owner.qualified}.{name}", tuple(given.values()), given.named())


def _handed_over(reader: Interpreter, node: ast.Call, given: Arguments) -> None:
    """A pipeline goes into code that was not read: say so."""
    for argument in given.everything():
        for ref in refs(argument.value):
            if not ref.path and not isinstance(argument.value, Either):
                text = reader.source.excerpt(reader.source.span(node.func))[:80]
                ref.record.doubt(f"line {node.lineno}: it is handed to `{text}`, which was not followed")
