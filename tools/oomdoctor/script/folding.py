"""Arithmetic, text and comparisons on values that are known; everything else stays unknown."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

from oomdoctor.script import libraries
from oomdoctor.script.domain import (
    UNKNOWN,
    Abstract,
    Const,
    Either,
    Made,
    Mapping,
    Named,
    Ref,
    Result,
    Sequence,
    Unknown,
    UserClass,
    UserFunction,
    UserObject,
    choices,
    join,
)

MAX_TEXT = 20_000
MAX_ITEMS = 1_000
_MAX_NUMBER = 1 << 62
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitOr: operator.or_, ast.BitAnd: operator.and_,
    ast.LShift: operator.lshift, ast.RShift: operator.rshift, ast.Pow: operator.pow,
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


def derived(value: Abstract) -> Abstract:
    """The same value, reached through a name."""
    if isinstance(value, Const) and value.literal:
        return Const(value.value, literal=False)
    if isinstance(value, Either):
        return Either(tuple(derived(v) for v in value.choices))
    return value


def constant(value: object, *, literal: bool = False) -> Abstract:
    """A Const, or unknown when it is not a JSON scalar or is too large to carry."""
    if value is None or isinstance(value, bool):
        return Const(value, literal)
    if isinstance(value, int) and abs(value) <= _MAX_NUMBER:
        return Const(value, literal)
    if isinstance(value, float) and math.isfinite(value):
        return Const(value, literal)
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return Const(value, literal)
    return UNKNOWN


def _plain_operand(value: Abstract) -> tuple[bool, Any]:
    return (True, value.value) if isinstance(value, Const) else (False, None)


def binary(op: ast.operator, left: Abstract, right: Abstract) -> Abstract:
    """``left op right``; lists only know ``+`` and ``* int``."""
    if isinstance(left, Either) or isinstance(right, Either):
        if len(choices(left)) * len(choices(right)) > 64:
            return UNKNOWN
        return join(binary(op, a, b) for a in choices(left) for b in choices(right))
    if isinstance(left, Sequence) or isinstance(right, Sequence):
        return _lists(op, left, right)
    if isinstance(op, ast.BitOr) and isinstance(left, Mapping) and isinstance(right, Mapping):
        return Mapping({**left.items, **right.items}, left.open or right.open)
    if isinstance(op, ast.Div) and isinstance(left, Made) and libraries.last(left.qualified) in libraries.PATHS:
        return Made(left.qualified, (*left.positional, right), {})
    if isinstance(op, ast.Mod) and isinstance(left, Const) and isinstance(left.value, str):
        parts = right.items if isinstance(right, Sequence) else [right]
        return _percent(left.value, parts)
    (known_left, a), (known_right, b) = _plain_operand(left), _plain_operand(right)
    function = _OPERATORS.get(type(op))
    if not (known_left and known_right) or function is None or not _sane(op, a, b):
        return UNKNOWN
    try:
        return constant(function(a, b))
    except (ArithmeticError, TypeError, ValueError):
        return UNKNOWN


def _sane(op: ast.operator, a: Any, b: Any) -> bool:
    """Whether the operation is small: `2 ** 10 ** 9` and `"a" * 10 ** 9` are not worth an answer."""
    if isinstance(op, ast.Pow):
        return isinstance(a, int | float) and isinstance(b, int | float) and abs(a) <= 1e6 and abs(b) <= 64
    if isinstance(op, ast.LShift):
        return isinstance(b, int) and 0 <= b <= 62
    if isinstance(op, ast.Mult) and isinstance(a, str) != isinstance(b, str):
        text, times = (a, b) if isinstance(a, str) else (b, a)
        return isinstance(times, int) and len(text) * times <= MAX_TEXT
    return True


def _lists(op: ast.operator, left: Abstract, right: Abstract) -> Abstract:
    if isinstance(op, ast.Add) and isinstance(left, Sequence) and isinstance(right, Sequence):
        items = left.items + right.items
        return Sequence(items, left.open or right.open) if len(items) <= MAX_ITEMS else UNKNOWN
    if isinstance(op, ast.Mult):
        sequence, times = (left, right) if isinstance(left, Sequence) else (right, left)
        if isinstance(sequence, Sequence) and isinstance(times, Const) and isinstance(times.value, int):
            fits = 0 <= len(sequence.items) * times.value <= MAX_ITEMS
            return Sequence(sequence.items * times.value, sequence.open) if fits else UNKNOWN
    return UNKNOWN


def _percent(template: str, parts: Iterable[Abstract]) -> Abstract:
    values = [p.value for p in parts if isinstance(p, Const)]
    if len(values) != template.count("%") - 2 * template.count("%%") or "%(" in template or "*" in template:
        return UNKNOWN
    if re.search(r"%[^a-zA-Z%]*\d{4}", template):
        return UNKNOWN  # a width that would make megabytes
    try:
        return constant(template % tuple(values)) if len(template) < MAX_TEXT else UNKNOWN
    except (TypeError, ValueError, OverflowError, MemoryError):
        return UNKNOWN


def unary(op: ast.unaryop, value: Abstract) -> Abstract:
    if isinstance(op, ast.Not):
        known = truth(value)
        return UNKNOWN if known is None else Const(not known, literal=False)
    if isinstance(value, Const) and isinstance(value.value, int | float) and isinstance(op, ast.USub | ast.UAdd):
        return constant(-value.value if isinstance(op, ast.USub) else value.value, literal=value.literal)
    return UNKNOWN


def truth(value: Abstract) -> bool | None:
    """Whether it counts as true; None when that is not known."""
    if isinstance(value, Const):
        return bool(value.value)
    if isinstance(value, Sequence | Mapping):
        return None if value.open else bool(value.items)
    if isinstance(value, Ref | Result | UserFunction | UserClass | UserObject | Named):
        return True
    if isinstance(value, Either):
        answers = {truth(v) for v in value.choices}
        return answers.pop() if len(answers) == 1 else None
    return None


def compare(op: ast.cmpop, left: Abstract, right: Abstract) -> Abstract:
    if isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
        # Something that exists is not None, whatever else it is.
        for a, b in ((left, right), (right, left)):
            if isinstance(b, Const) and b.value is None and isinstance(a, Ref | UserObject | Sequence | Mapping | Made):
                return Const(isinstance(op, ast.IsNot | ast.NotEq), literal=False)
    if isinstance(left, Const) and isinstance(right, Sequence) and isinstance(op, ast.In | ast.NotIn):
        if right.open or not all(isinstance(i, Const) for i in right.items):
            return UNKNOWN
        inside = any(isinstance(i, Const) and i.value == left.value for i in right.items)
        return Const(inside == isinstance(op, ast.In), literal=False)
    if isinstance(left, Named) and isinstance(right, Named) and isinstance(op, ast.Eq | ast.NotEq | ast.Is):
        return Const((left == right) != isinstance(op, ast.NotEq), literal=False)
    if not (isinstance(left, Const) and isinstance(right, Const)):
        return UNKNOWN
    function = _COMPARISONS.get(type(op))
    a, b = left.value, right.value
    if isinstance(op, ast.Is | ast.IsNot) and None not in (a, b) and not isinstance(a, bool):
        return UNKNOWN
    try:
        return Const(bool(function(a, b)), literal=False) if function else UNKNOWN
    except TypeError:
        return UNKNOWN


def formatted(parts: Iterable[tuple[Abstract, bool]]) -> Abstract:
    """An f-string from its parts; (value, has a conversion or a format). Unknown when a part is."""
    out = []
    for value, special in parts:
        if not isinstance(value, Const) or (special and not isinstance(value.value, str)):
            return UNKNOWN
        out.append(str(value.value))
    return constant("".join(out))


def join_path(parts: Iterable[Abstract]) -> Abstract:
    """``os.path.join`` and ``Path / x`` as text."""
    out: list[str] = []
    for part in parts:
        for piece in part.positional if isinstance(part, Made) else (part,):
            if not isinstance(piece, Const) or not isinstance(piece.value, str):
                return UNKNOWN
            out = [piece.value] if piece.value.startswith("/") else [*out, piece.value.rstrip("/")]
    return constant("/".join(o for o in out if o))


def as_text(value: Abstract) -> str | None:
    return value.value if isinstance(value, Const) and isinstance(value.value, str) else None


def convert(value: Abstract, type_name: str | None) -> Abstract:
    """A default given as text, converted as the option's ``type`` does."""
    kinds: dict[str, Callable[[Any], object]] = {"int": int, "float": float, "str": str}
    if not isinstance(value, Const) or value.value is None or type_name not in kinds:
        return value
    if isinstance(value.value, str) or type_name == "str":
        try:
            return constant(kinds[type_name](value.value))
        except ValueError:
            return UNKNOWN
    return value


def is_unknown(value: Abstract) -> bool:
    return isinstance(value, Unknown)


def element(value: Abstract) -> Abstract:
    """What a loop over the value sees: each item of a list, else unknown."""
    found: list[Abstract] = []
    for choice in choices(value):
        if isinstance(choice, Sequence) and choice.items:
            found += choice.items
            if choice.open:
                found.append(UNKNOWN)
        elif isinstance(choice, Mapping) and choice.items and not choice.open:
            found += [Const(key, literal=False) for key in choice.items]
        else:
            return UNKNOWN
    if found and all(isinstance(f, Sequence) for f in found):
        return _columns([f for f in found if isinstance(f, Sequence)])
    return derived(join(found))


def _columns(rows: list[Sequence]) -> Abstract:
    """Items that are themselves tuples, for ``for a, b in [(1, 2), (3, 4)]``: joined place by place."""
    width = len(rows[0].items)
    if any(len(row.items) != width or row.open for row in rows):
        return UNKNOWN
    return Sequence([derived(join(row.items[i] for row in rows)) for i in range(width)])
