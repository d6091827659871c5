"""Functions and classes of the script: their parameters, option decorators and attributes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from oomdoctor.script import folding, libraries, options
from oomdoctor.script.domain import (
    UNKNOWN,
    Abstract,
    Const,
    Mapping,
    Named,
    Scope,
    Sequence,
    UserClass,
    UserFunction,
    UserObject,
    choices,
    refs,
)
from oomdoctor.script.expressions import called_name, evaluate

if TYPE_CHECKING:
    from oomdoctor.script.interpreter import Interpreter

_EARLY = ("__init__", "__post_init__", "setup", "load", "__enter__", "startup")


def define_function(reader: Interpreter, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Bind the name; the body is read later."""
    function = make_function(reader, node)
    for decorator in node.decorator_list:
        _decorate(reader, function, decorator)
    reader.scope.set(node.name, function)


def make_function(reader: Interpreter, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> UserFunction:
    """A function whose body is still to be read; its defaults are read now, as Python does."""
    function = UserFunction(node, reader.scope)
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    for parameter, expression in zip(positional[::-1], arguments.defaults[::-1], strict=False):
        function.defaults[parameter.arg] = options.parameter_default(evaluate(reader, expression))
    for parameter, keyword_default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if keyword_default is not None:
            function.defaults[parameter.arg] = options.parameter_default(evaluate(reader, keyword_default))
    reader.functions.append(function)
    return function


def _decorate(reader: Interpreter, function: UserFunction, decorator: ast.expr) -> None:
    value = evaluate(reader, decorator)
    name = called_name(value)
    if name in libraries.GRAD_OFF:
        function.grad_off = True
    elif name in libraries.AUTOCAST:
        function.autocast = True
    elif isinstance(decorator, ast.Name) and decorator.id in ("staticmethod", "classmethod", "property"):
        function.is_static = decorator.id == "staticmethod"
        function.is_property = decorator.id == "property"
    elif libraries.last(name) == "cached_property":
        function.is_property = True
    else:
        options.click_option(value, function)


def define_class(reader: Interpreter, node: ast.ClassDef) -> None:
    """Read the class body; methods are read later, with one shared instance."""
    bases = tuple(evaluate(reader, base) for base in node.bases)
    scope = Scope(f"{reader.scope.name}.{node.name}".lstrip("."), reader.scope, is_class=True)
    cls = UserClass(node.name, scope, bases)
    cls.itself = UserObject(cls)
    outer, first = reader.scope, len(reader.functions)
    reader.scope = scope
    try:
        reader.block(node.body)
    finally:
        reader.scope = outer
    for function in reader.functions[first:]:
        if function.scope is scope and not isinstance(function.node, ast.Lambda):
            function.owner = cls
    outer.set(node.name, cls)


def lookup(cls: UserClass, name: str, depth: int = 0) -> Abstract | None:
    """An attribute of the class or of its bases in the script."""
    for layer in reversed(cls.scope.layers):
        if name in layer:
            return layer[name]
    for base in cls.bases:
        if isinstance(base, UserClass) and depth < 20:
            found = lookup(base, name, depth + 1)
            if found is not None:
                return found
    return None


def library_base(cls: UserClass, depth: int = 0) -> str | None:
    """Qualified name of the first library class that it inherits from."""
    for base in cls.bases:
        if isinstance(base, Named):
            return base.qualified
        if isinstance(base, UserClass) and depth < 20:
            found = library_base(base, depth + 1)
            if found:
                return found
    return None


def function_name(function: UserFunction) -> str:
    """Dotted name as in a traceback."""
    name = "<lambda>" if isinstance(function.node, ast.Lambda) else function.node.name
    return f"{function.scope.name}.{name}".lstrip(".")


def signature_of(positional: list[Abstract], keywords: dict[str, Abstract]) -> tuple[int, ...]:
    """What distinguishes one call from another: the pipelines and plain values that are handed over."""
    out = [0] * bool(positional or keywords)
    for value in (*positional, *keywords.values()):
        out += [id(ref.record) for ref in refs(value)]
        out += [hash((type(choice.value), choice.value)) for choice in choices(value) if isinstance(choice, Const)]
    return tuple(out)


def bind_parameters(
    reader: Interpreter, function: UserFunction, positional: list[Abstract], keywords: dict[str, Abstract]
) -> None:
    """Give the parameters their values: the arguments, else what options or defaults say, else unknown."""
    arguments = function.node.args
    names = [p.arg for p in (*arguments.posonlyargs, *arguments.args)]
    bound = not function.is_static and function.owner is not None
    if bound and names and not (positional and isinstance(positional[0], UserObject)):
        itself = function.owner.itself if function.owner else None
        positional = [itself or UNKNOWN, *positional]
    for parameter in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        default = function.options.get(parameter.arg, function.defaults.get(parameter.arg, UNKNOWN))
        if default is UNKNOWN and parameter.annotation is not None:
            default = _annotated(reader, parameter.annotation)
        reader.scope.set(parameter.arg, folding.derived(default))
    for name, value in zip(names, positional, strict=False):
        reader.scope.set(name, folding.derived(value))
    allowed = {*names, *(p.arg for p in arguments.kwonlyargs)}
    rest = {name: value for name, value in keywords.items() if name not in allowed}
    for name, value in keywords.items():
        if name in allowed:
            reader.scope.set(name, folding.derived(value))
    if arguments.vararg:
        reader.scope.set(arguments.vararg.arg, Sequence(positional[len(names) :], open=not positional))
    if arguments.kwarg:
        extra = {name: value for name, value in function.options.items() if name not in allowed}
        reader.scope.set(arguments.kwarg.arg, Mapping({**extra, **rest}, open=not (rest or extra)))


def _annotated(reader: Interpreter, annotation: ast.expr) -> Abstract:
    """A parameter that is annotated with a class of the script is an instance of it, with its defaults."""
    name = annotation.value if isinstance(annotation, ast.Constant) else None
    value = reader.scope.get(name) if isinstance(name, str) else evaluate(reader, annotation)
    return value.itself or UNKNOWN if isinstance(value, UserClass) else UNKNOWN


def reading_order(function: UserFunction) -> int:
    """In which order functions that nothing calls are read; looks at the body once.

    0 for what sets objects up, 1 for what loads without being told what, 2 for the rest, 3 for what loads what its
    parameters say: one of the others probably calls it.
    """
    node = function.node
    if isinstance(node, ast.Lambda):
        return 2
    if function.owner is not None and node.name.startswith(_EARLY):
        return 0
    arguments = node.args
    required = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults) - (function.owner is not None)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and inner.attr in libraries.LOADERS:
            return 3 if required > len(function.options) else 1
    return 2
