"""Where values go: names, attributes, items, and what vanishes with ``del``."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from oomdoctor.script import folding, libraries, uses
from oomdoctor.script.domain import (
    UNKNOWN,
    Abstract,
    Const,
    Either,
    Mapping,
    Named,
    Ref,
    Sequence,
    UserClass,
    UserObject,
    choices,
    join,
    refs,
)
from oomdoctor.script.expressions import dotted, evaluate
from oomdoctor.script.known import known

if TYPE_CHECKING:
    from oomdoctor.script.interpreter import Interpreter


def assign(reader: Interpreter, target: ast.expr, value: Abstract, node: ast.expr | None) -> None:
    """``target = value``; ``node`` is the expression on the right, None when there is none (loops)."""
    if isinstance(target, ast.Name):
        reader.scope.set(target.id, value)
        _name(reader, target.id, value)
    elif isinstance(target, ast.Attribute):
        _assign_attribute(reader, target, value, node)
    elif isinstance(target, ast.Subscript):
        _assign_item(reader, target, value, node)
    elif isinstance(target, ast.Starred):
        assign(reader, target.value, UNKNOWN, None)
    elif isinstance(target, ast.Tuple | ast.List):
        items = value.items if isinstance(value, Sequence) and not value.open else []
        starred = any(isinstance(t, ast.Starred) for t in target.elts)
        pairs = node.elts if isinstance(node, ast.Tuple | ast.List) else []
        for i, part in enumerate(target.elts):
            fits = len(items) == len(target.elts) and not starred
            assign(reader, part, items[i] if fits else UNKNOWN, pairs[i] if fits and i < len(pairs) else None)


def _name(reader: Interpreter, name: str, value: Abstract) -> None:
    """A pipeline or model is called what it is first assigned to."""
    for ref in refs(value):
        if ref.record.variable is None and not ref.path:
            ref.record.variable = name
            ref.record.bound = reader.statement_span()


def _assign_attribute(reader: Interpreter, target: ast.Attribute, value: Abstract, node: ast.expr | None) -> None:
    owner = evaluate(reader, target.value)
    written = dotted(target) or target.attr
    _name(reader, written, value)
    if not any(isinstance(choice, UserObject | UserClass | Ref) for choice in choices(owner)):
        _keep_attribute(reader, written, value)
    for choice in choices(owner):
        if isinstance(choice, UserObject):
            _assign_member(reader, choice, target.attr, value)
        elif isinstance(choice, UserClass):
            choice.scope.set(target.attr, value)
        elif isinstance(choice, Ref):
            uses.assign_part(reader, choice, target, value, node)
        elif isinstance(choice, Named) and libraries.SETTINGS.match(f"{choice.qualified}.{target.attr}"):
            arguments = {"value": known(value, node, reader.source)} if node is not None else {}
            uses.setting(reader, f"{choice.qualified}.{target.attr}", arguments, reader.source.span(target))


def _keep_attribute(reader: Interpreter, written: str, value: Abstract) -> None:
    """``app.state.pipe = load()`` on an object that is not ours: it is known by what is written, elsewhere too."""
    root, dot, _ = written.partition(".")
    if dot and any(True for _ in refs(value)):
        reader.scope.home(root).set(written, value)
        if reader.module.get(written) is None:
            reader.module.set(written, value)
        reader.foreign.add(written.rpartition(".")[2])


def _assign_member(reader: Interpreter, instance: UserObject, name: str, value: Abstract) -> None:
    uncertain = bool(reader.context.branches or reader.context.loops)
    for place in {id(o): o for o in (instance, instance.cls.itself) if o is not None}.values():
        before = place.attributes.get(name)
        placeholder = isinstance(before, Const) and before.value is None
        if before is None or placeholder or not (uncertain or place is not instance):
            place.attributes[name] = value
        elif not (isinstance(value, Const) and value.value is None):
            place.attributes[name] = join([before, value])


def _assign_item(reader: Interpreter, target: ast.Subscript, value: Abstract, node: ast.expr | None) -> None:
    owner = evaluate(reader, target.value)
    key = evaluate(reader, target.slice)
    reader.keep(value)
    if isinstance(owner, Named) and owner.qualified == "os.environ" and node is not None:
        uses.set_environment(reader, key, known(value, node, reader.source))
    elif isinstance(owner, Mapping):
        text = folding.as_text(key)
        if text is None:
            owner.open = True
        else:
            before = owner.items.get(text)
            owner.items[text] = join([before, value]) if before is not None and reader.context.branches else value
    elif isinstance(owner, Sequence):
        owner.open = True


def augment(reader: Interpreter, node: ast.AugAssign) -> None:
    """``x += y``: folded outside loops, unknown inside."""
    right = evaluate(reader, node.value)
    left = evaluate(reader, node.target)
    reader.keep(right)
    if isinstance(left, Sequence) and isinstance(right, Sequence):
        left.items = [*left.items, *right.items][: folding.MAX_ITEMS]
        left.open = left.open or right.open or bool(reader.context.loops)
        return
    inside = bool(reader.context.loops)
    assign(reader, node.target, UNKNOWN if inside else folding.binary(node.op, left, right), None)


def delete(reader: Interpreter, target: ast.expr) -> None:
    """``del x`` and ``del pipe.text_encoder``."""
    if isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            delete(reader, part)
        return
    value = evaluate(reader, target)
    for choice in value.choices if isinstance(value, Either) else (value,):
        if isinstance(choice, Ref):
            uses.record_technique(
                reader, choice.record, "del", ".".join(choice.path), target, {}, reader.source.span(target)
            )
    if isinstance(target, ast.Name):
        reader.scope.set(target.id, UNKNOWN)
