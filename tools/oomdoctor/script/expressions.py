"""What an expression stands for. Each is read once where it stands; calls are handed to :mod:`calls`."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from oomdoctor.script import folding, libraries, options
from oomdoctor.script.domain import (
    UNKNOWN,
    Abstract,
    Const,
    Either,
    Made,
    Mapping,
    Method,
    Named,
    Options,
    Ref,
    Result,
    Scope,
    Sequence,
    UserClass,
    UserFunction,
    UserObject,
    choices,
    join,
    refs,
)

if TYPE_CHECKING:
    from oomdoctor.script.interpreter import Interpreter

_TYPES = {"int", "float", "str", "bool", "list", "dict", "tuple", "set", "range", "len", "print", "open", "getattr",
          "setattr", "hasattr", "isinstance", "enumerate", "zip", "map", "min", "max", "vars", "sorted", "reversed",
          "round", "abs", "super", "iter", "next", "id", "type", "sum"}  # fmt: skip


def dotted(node: ast.expr) -> str | None:
    """``self.pipe.vae`` as text; None when the expression is more than names and dots."""
    parts: list[str] = []
    current = node
    while isinstance(current, ast.Attribute):
        parts.append(current.attr)
        current = current.value
    if not isinstance(current, ast.Name):
        return None
    return ".".join([current.id, *reversed(parts)])


def called_name(value: Abstract) -> str:
    """Qualified name of what was called (or could be), empty when it is not of a library."""
    return value.qualified if isinstance(value, Named | Made) else ""


def evaluate(reader: Interpreter, node: ast.expr) -> Abstract:
    """What the expression stands for."""
    match node:
        case ast.Constant():
            return folding.constant(node.value, literal=True)
        case ast.Name():
            return _name(reader, node)
        case ast.Attribute():
            if node.attr in reader.foreign and (written := dotted(node)) is not None:
                held = reader.scope.home(written.partition(".")[0]).get(written)
                if held is not None:
                    return held
            return join(attribute(reader, choice, node.attr) for choice in choices(evaluate(reader, node.value)))
        case ast.Call():
            return reader.call(node)
        case ast.BinOp():
            return _binary(reader, node)
        case ast.UnaryOp():
            return folding.unary(node.op, evaluate(reader, node.operand))
        case ast.BoolOp():
            return _boolean(reader, node)
        case ast.Compare():
            return _compare(reader, node)
        case ast.IfExp():
            return _conditional(reader, node)
        case ast.JoinedStr():
            return _formatted(reader, node)
        case ast.List() | ast.Tuple() | ast.Set():
            return _items(reader, node.elts)
        case ast.Dict():
            return _mapping(reader, node)
        case ast.Subscript():
            return _subscript(reader, node)
        case ast.NamedExpr():
            value = evaluate(reader, node.value)
            reader.assign(node.target, value, node.value)
            return value
        case ast.Await() | ast.YieldFrom():
            return evaluate(reader, node.value)
        case ast.Yield():
            value = evaluate(reader, node.value) if node.value else UNKNOWN
            if reader.returns:
                reader.returns[-1].append(value)
            return UNKNOWN
        case ast.Starred():
            return evaluate(reader, node.value)
        case ast.Lambda():
            return reader.function(node)
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            return _comprehension(reader, node)
        case ast.Slice():
            for part in (node.lower, node.upper, node.step):
                if part is not None:
                    evaluate(reader, part)
    return UNKNOWN


def _name(reader: Interpreter, node: ast.Name) -> Abstract:
    value = reader.scope.get(node.id)
    if value is not None:
        return folding.derived(value)
    if node.id in _TYPES:
        return Named(node.id)
    if node.id == "__name__":
        return Const("__main__", literal=False)
    for module in reader.star_modules:
        if module in ("diffusers", "torch", "transformers") and not node.id.islower():
            return Named(f"{module}.{node.id}")
    if node.id in ("torch", "diffusers", "transformers", "os", "gc") or node.id[:1].isupper():
        # Excerpts and notebooks often leave the imports out.
        return Named(node.id if node.id.islower() else f"{libraries.UNRESOLVED}.{node.id}")
    return UNKNOWN


def attribute(reader: Interpreter, owner: Abstract, name: str) -> Abstract:
    """``owner.name``."""
    match owner:
        case Named(qualified=qualified):
            return Named(f"{qualified}.{name}")
        case Ref(record=record, path=path):
            return reader.part(record, path, name)
        case Result():
            return owner if name in ("images", "frames", "sample", "latents", "image_embeds", "video", "audios",
                                     "latent_dist", "image_embeddings", "prompt_embeds") else Method(owner, name)  # fmt: skip
        case UserObject():
            return reader.attribute(owner, name)
        case UserClass():
            return reader.class_attribute(owner, name)
        case Options():
            return Method(owner, name) if name in options.METHODS else options.parsed(owner, name)
        case Made(qualified=qualified):
            if name in ("device", "_execution_device") and libraries.last(qualified) in libraries.ACCELERATORS:
                return Const("cuda", literal=False)
            return Method(owner, name)
        case Mapping(items=items):
            if name in items and name not in ("get", "items", "keys", "values", "update", "pop", "copy", "setdefault"):
                return folding.derived(items[name])
            return Method(owner, name)
        case Const(value=str() as text) if name == "type":
            return Const(text.split(":")[0], literal=False)
        case Const() | Sequence() | UserFunction():
            return Method(owner, name)
    return UNKNOWN


def _binary(reader: Interpreter, node: ast.BinOp) -> Abstract:
    # `a + b + c ...` nests to the left, as deep as it is long: unrolled.
    chain: list[ast.BinOp] = []
    current: ast.expr = node
    while isinstance(current, ast.BinOp):
        chain.append(current)
        current = current.left
    value = evaluate(reader, current)
    for step in reversed(chain):
        value = folding.binary(step.op, value, evaluate(reader, step.right))
    return value


def _boolean(reader: Interpreter, node: ast.BoolOp) -> Abstract:
    possible: list[Abstract] = []
    stops = isinstance(node.op, ast.Or)
    decided = False
    for i, part in enumerate(node.values):
        value = evaluate(reader, part)
        if decided:
            continue
        holds = folding.truth(value)
        if holds is stops or i == len(node.values) - 1:
            possible.append(value)
            decided = holds is stops
        elif holds is None:
            possible.append(value if not isinstance(value, Const) else UNKNOWN)
    return folding.derived(join(possible))


def _compare(reader: Interpreter, node: ast.Compare) -> Abstract:
    left = evaluate(reader, node.left)
    rights = [evaluate(reader, part) for part in node.comparators]
    if len(rights) != 1:
        return UNKNOWN
    return folding.compare(node.ops[0], left, rights[0])


def _conditional(reader: Interpreter, node: ast.IfExp) -> Abstract:
    holds = folding.truth(evaluate(reader, node.test))
    if holds is None:
        return join([folding.derived(evaluate(reader, node.body)), folding.derived(evaluate(reader, node.orelse))])
    return folding.derived(evaluate(reader, node.body if holds else node.orelse))


def _formatted(reader: Interpreter, node: ast.JoinedStr) -> Abstract:
    parts: list[tuple[Abstract, bool]] = []
    for value in node.values:
        if isinstance(value, ast.FormattedValue):
            special = value.format_spec is not None or value.conversion not in (-1, 115)
            parts.append((evaluate(reader, value.value), special and value.format_spec is not None))
            if value.conversion not in (-1, 115):
                parts[-1] = (UNKNOWN, True)
        else:
            parts.append((evaluate(reader, value), False))
    return folding.formatted(parts)


def _items(reader: Interpreter, elements: list[ast.expr]) -> Abstract:
    items: list[Abstract] = []
    is_open = len(elements) > folding.MAX_ITEMS
    for part in elements:
        value = evaluate(reader, part)
        if isinstance(part, ast.Starred):
            if isinstance(value, Sequence) and not value.open:
                items += value.items
            else:
                is_open = True
        else:
            items.append(value)
    return Sequence(items[: folding.MAX_ITEMS], is_open)


def _mapping(reader: Interpreter, node: ast.Dict) -> Abstract:
    out = Mapping({})
    for key, expression in zip(node.keys, node.values, strict=True):
        value = evaluate(reader, expression)
        if key is None:
            if isinstance(value, Mapping):
                out.items.update(value.items)
                out.open = out.open or value.open
            else:
                out.open = True
            continue
        name = evaluate(reader, key)
        if isinstance(name, Const) and isinstance(name.value, str | int):
            out.items[str(name.value)] = value
        else:
            out.open = True
    return out


def _subscript(reader: Interpreter, node: ast.Subscript) -> Abstract:
    owner = evaluate(reader, node.value)
    index = evaluate(reader, node.slice)
    return join(subscript(choice, index) for choice in choices(owner))


def subscript(owner: Abstract, index: Abstract) -> Abstract:
    """``owner[index]``."""
    key = index.value if isinstance(index, Const) else None
    if isinstance(owner, Result):
        return owner
    if isinstance(owner, Named) and owner.qualified in ("typing.Annotated", "typing.Optional"):
        return owner
    if isinstance(owner, Sequence):
        if isinstance(key, int) and -len(owner.items) <= key < len(owner.items):
            return folding.derived(owner.items[key])
        held = [item for item in owner.items if refs(item)]
        return join(held) if held else UNKNOWN
    if isinstance(owner, Mapping):
        if isinstance(key, str | int) and str(key) in owner.items:
            return folding.derived(owner.items[str(key)])
        if key is None and not owner.open and owner.items:
            return folding.derived(join(owner.items.values()))
    if isinstance(owner, Options) and isinstance(key, str):
        return options.parsed(owner, key)
    if isinstance(owner, Ref) and isinstance(key, str) and owner.path == ("components",):
        return Ref(owner.record, (key,))
    return UNKNOWN


def _comprehension(reader: Interpreter, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Abstract:
    outer = reader.scope
    sources = [evaluate(reader, node.generators[0].iter)]
    reader.scope = Scope(outer.name, outer)
    reader.context.loops.append(node.lineno)
    try:
        for i, generator in enumerate(node.generators):
            value = sources[0] if i == 0 else evaluate(reader, generator.iter)
            reader.assign(generator.target, folding.element(value), None)
            for test in generator.ifs:
                evaluate(reader, test)
        produced = _produced(reader, node)
        each = _each(reader, node, sources[0], produced)
        reader.keep(produced)
    finally:
        reader.context.loops.pop()
        reader.scope = outer
    if isinstance(node, ast.DictComp):
        return Mapping({}, open=True)
    if each is not None:
        return Sequence(each)
    first = sources[0]
    length = len(first.items) if isinstance(first, Sequence) and not first.open and len(node.generators) == 1 else 0
    if length and not node.generators[0].ifs and not isinstance(produced, Either):
        return Sequence([produced] * length)
    return Sequence([produced], open=True)


def _produced(reader: Interpreter, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Abstract:
    if isinstance(node, ast.DictComp):
        evaluate(reader, node.key)
        return evaluate(reader, node.value)
    return evaluate(reader, node.elt)


def _each(
    reader: Interpreter,
    node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp,
    source: Abstract,
    produced: Abstract,
) -> list[Abstract] | None:
    """``[load(name) for name in ("a", "b")]`` loads two things: each is read with its own item."""
    simple = len(node.generators) == 1 and not node.generators[0].ifs and not isinstance(node, ast.DictComp)
    if not simple or not refs(produced) or not isinstance(source, Sequence) or source.open or len(source.items) > 4:
        return None
    out = []
    for item in source.items:
        reader.assign(node.generators[0].target, folding.derived(item), None)
        out.append(_produced(reader, node))
    return out
