"""What an expression can stand for while a script is read. Nothing here is the real object."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from oomdoctor.values import Adapter, Call, Known, Loaded, Optimisation, Placement, Span


@dataclass(slots=True, frozen=True)
class Const:
    """A JSON-like value. ``literal`` until a name, an option default or arithmetic lies between."""

    value: Any
    literal: bool = True


@dataclass(slots=True, frozen=True)
class Unknown:
    """Not told by the text."""


UNKNOWN = Unknown()


@dataclass(slots=True, frozen=True)
class Named:
    """Something of a library, by its qualified name: a module, class, function or constant."""

    qualified: str


@dataclass(slots=True, frozen=True)
class Made:
    """What calling a class or function of a library gives, with its arguments."""

    qualified: str
    positional: tuple[Abstract, ...]
    keywords: dict[str, Abstract]


@dataclass(slots=True, frozen=True)
class Method:
    """An attribute of a value that is not a library name, waiting to be called."""

    owner: Abstract
    name: str


@dataclass(slots=True)
class Sequence:
    items: list[Abstract]
    open: bool = False
    """More may have been added in a loop."""


@dataclass(slots=True)
class Mapping:
    items: dict[str, Abstract]
    open: bool = False
    """Has keys that are not known."""


@dataclass(slots=True, eq=False)
class Record:
    """A pipeline, model or part, as it is being collected."""

    kind: str
    class_name: str
    module: str
    loader: str
    load_span: Span
    load_statement: Span
    scope: str
    order: int
    model: Known = field(default_factory=Known)
    dtype: Known = field(default_factory=Known)
    variant: Known = field(default_factory=Known)
    subfolder: Known = field(default_factory=Known)
    arguments: dict[str, Known] = field(default_factory=dict)
    variable: str | None = None
    bound: Span | None = None
    source: Record | None = None
    """For ``from_pipe``."""
    components: list[tuple[str, Record | Loaded]] = field(default_factory=list)
    owners: list[Record] = field(default_factory=list)
    """Pipelines it was passed into."""
    placements: list[Placement] = field(default_factory=list)
    optimisations: list[Optimisation] = field(default_factory=list)
    adapters: list[Adapter] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    part_calls: list[Call] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    trust_remote_code: bool = False
    condition: str | None = None
    runs: bool | None = True
    branches: tuple[tuple[str, bool | None], ...] = ()
    seen: set[tuple[str, int, int]] = field(default_factory=set)
    """What was recorded already, by kind and place: bodies can be read more than once."""

    def once(self, what: str, span: Span) -> bool:
        key = (what, span.line, span.column * 100_000 + span.end_line + span.end_column)
        if key in self.seen:
            return False
        self.seen.add(key)
        return True

    def doubt(self, text: str) -> None:
        if text not in self.uncertain:
            self.uncertain.append(text)


@dataclass(slots=True, frozen=True)
class Ref:
    """A pipeline or model, or (with a path) a part of it."""

    record: Record
    path: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Result:
    """What a call of a pipeline or model gave, or something taken out of it."""

    record: Record
    call: Span
    on_device: bool


@dataclass(slots=True, eq=False)
class Scope:
    """Names of a module, function, class or comprehension, with overlays for branches that are being read."""

    name: str
    parent: Scope | None = None
    layers: list[dict[str, Abstract]] = field(default_factory=lambda: [{}])
    outer: dict[str, Scope] = field(default_factory=dict)
    """Names declared global or nonlocal."""
    is_class: bool = False

    def get(self, name: str) -> Abstract | None:
        scope: Scope | None = self.outer.get(name, self)
        first = True
        while scope is not None:
            if first or not scope.is_class:
                for layer in reversed(scope.layers):
                    if name in layer:
                        return layer[name]
            scope, first = scope.parent, False
        return None

    def home(self, name: str) -> Scope:
        """The scope whose ``name`` is meant here; the module's when nothing defines it."""
        scope = self.outer.get(name, self)
        while scope.parent is not None and (scope.is_class or not any(name in layer for layer in scope.layers)):
            scope = scope.parent
        return scope

    def set(self, name: str, value: Abstract) -> None:
        target = self.outer.get(name, self)
        target.layers[-1][name] = value


@dataclass(slots=True, eq=False)
class UserFunction:
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: Scope
    owner: UserClass | None = None
    options: dict[str, Abstract] = field(default_factory=dict)
    """Defaults that decorators give to parameters."""
    defaults: dict[str, Abstract] = field(default_factory=dict)
    reads: int = 0
    busy: bool = False
    loaded: bool = False
    """Reading it at the end, on its own, brought a pipeline or model."""
    grad_off: bool = False
    autocast: bool = False
    returned: Abstract = UNKNOWN
    signatures: set[tuple[int, ...]] = field(default_factory=set)
    is_static: bool = False
    is_property: bool = False


@dataclass(slots=True, frozen=True)
class Bound:
    """A method of an instance."""

    function: UserFunction
    instance: UserObject


@dataclass(slots=True, eq=False)
class UserClass:
    name: str
    scope: Scope
    bases: tuple[Abstract, ...] = ()
    itself: UserObject | None = None
    """The instance that methods see as ``self``; attributes are kept per class."""


@dataclass(slots=True, eq=False)
class UserObject:
    """An instance: what was given to this one, then what its class says."""

    cls: UserClass
    attributes: dict[str, Abstract] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Options:
    """A parser of command-line options (or what it parsed): destination -> default."""

    defaults: dict[str, Abstract] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Either:
    """One of several."""

    choices: tuple[Abstract, ...]


Abstract: TypeAlias = (
    Const | Unknown | Named | Made | Method | Sequence | Mapping | Ref | Result | UserFunction | UserClass | UserObject
    | Options | Bound | Either
)  # fmt: skip
MAX_CHOICES = 32


def choices(value: Abstract) -> tuple[Abstract, ...]:
    return value.choices if isinstance(value, Either) else (value,)


def join(values: Iterable[Abstract]) -> Abstract:
    """One value that stands for all of them."""
    out: list[Abstract] = []
    for value in values:
        for choice in choices(value):
            if any(same(choice, other) for other in out):
                continue
            if len(out) == MAX_CHOICES:
                # Part of the truth would be worse than none, except that pipelines must not get lost.
                kept = tuple(c for c in out if isinstance(c, Ref))
                return Either(kept) if kept else UNKNOWN
            out.append(choice)
    if not out:
        return UNKNOWN
    return out[0] if len(out) == 1 else Either(tuple(out))


def same(a: Abstract, b: Abstract) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Const) and isinstance(b, Const):
        return type(a.value) is type(b.value) and bool(a.value == b.value)
    if isinstance(a, Ref) and isinstance(b, Ref):
        return a.record is b.record and a.path == b.path
    return isinstance(a, Unknown | Named) and a == b


def refs(value: Abstract) -> list[Ref]:
    """The pipelines and models that a value is or holds, one level deep."""
    out = []
    for choice in choices(value):
        if isinstance(choice, Ref):
            out.append(choice)
        elif isinstance(choice, Sequence):
            out += [r for item in choice.items for r in choices(item) if isinstance(r, Ref)]
    return out
