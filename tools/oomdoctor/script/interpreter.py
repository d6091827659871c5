"""Reads the statements of a script in the order in which they would run, without running any of them.

Every function body is read when the script calls it (a bounded number of times), the others at the end with the
defaults of their parameters; so the time is linear in the size of the script.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from oomdoctor.script import calls, definitions, folding, imports, kernels, libraries, options, patterns, targets, uses
from oomdoctor.script.domain import (
    UNKNOWN,
    Abstract,
    Bound,
    Const,
    Record,
    Result,
    Scope,
    Sequence,
    UserClass,
    UserFunction,
    UserObject,
    choices,
    join,
)
from oomdoctor.script.expressions import called_name, evaluate
from oomdoctor.script.text import Source
from oomdoctor.values import Known, Optimisation, Span

Branch = tuple[str, bool | None]
"""A test as written and whether it holds."""


@dataclass(slots=True)
class Context:
    """What surrounds the statement that is being read."""

    loops: list[int] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    grad_off: int = 0
    autocast: int = 0
    attention: tuple[str, ...] = ()
    """The attention kernels that a ``with`` block allows; empty where none says."""
    depth: int = 0


class Interpreter:
    """The state of one reading."""

    def __init__(self, tree: ast.Module, source: Source) -> None:
        self.tree = tree
        self.source = source
        self.module = Scope("")
        self.scope = self.module
        self.context = Context()
        self.records: list[Record] = []
        self.by_node: dict[tuple[int, str, str], Record] = {}
        self.functions: list[UserFunction] = []
        self.imports: dict[str, str] = {}
        self.star_modules: list[str] = []
        self.foreign: set[str] = set()
        """Attributes of objects of other libraries that hold something of ours."""
        self.kept: set[tuple[int, Span]] = set()
        self.settings: list[Optimisation] = []
        self.environment: dict[str, Known] = {}
        self.warnings: list[str] = []
        self.training_line: int | None = None
        self.statement: ast.stmt | None = None
        self._clock = 0
        self.returns: list[list[Abstract]] = []

    def run(self) -> None:
        """Read the module, then whatever functions nothing called."""
        self.block(self.tree.body)
        self.context = Context()
        pending = [(definitions.reading_order(f), f) for f in self.functions if not f.reads]
        ordered = [f for _, f in sorted(pending, key=lambda entry: entry[0])]
        self._read_rest(ordered)
        self._read_rest(self.functions)  # those that were defined inside the others
        loaded_late = any(order == 3 and f.loaded for order, f in pending)
        if loaded_late:
            # What they loaded into globals and attributes was not there when the rest was read.
            for order, function in pending:
                if order < 3 and function.reads == 1:
                    self.call_function(function, [UNKNOWN], {})

    def _read_rest(self, functions: list[UserFunction]) -> None:
        for function in list(functions):
            if not function.reads:
                before = len(self.records)
                self.call_function(function, [], {})
                function.loaded = len(self.records) > before

    # -- where we are ---------------------------------------------------------------------------------------------

    def tick(self) -> int:
        """The next position in the order of execution."""
        self._clock += 1
        return self._clock

    def statement_span(self) -> Span:
        assert self.statement is not None
        return self.source.span(self.statement)

    def condition(self) -> tuple[str | None, bool | None]:
        """The tests that surround the present statement, and whether they hold together."""
        if not self.context.branches:
            return None, True
        outcomes = [runs for _, runs in self.context.branches]
        text = " and ".join(test for test, _ in self.context.branches)
        runs = False if False in outcomes else None if None in outcomes else True
        return text[:400], runs

    def assign(self, target: ast.expr, value: Abstract, node: ast.expr | None) -> None:
        """``target = value``."""
        targets.assign(self, target, value, node)

    def function(self, node: ast.Lambda) -> UserFunction:
        """A lambda whose body is read when something calls it, or at the end."""
        return definitions.make_function(self, node)

    def evaluate(self, node: ast.expr) -> Abstract:
        """What an expression stands for."""
        return evaluate(self, node)

    def call(self, node: ast.Call) -> Abstract:
        """What a call gives."""
        return calls.call(self, node)

    def part(self, record: Record, path: tuple[str, ...], name: str) -> Abstract:
        """``pipe.name``."""
        return calls.part(record, path, name)

    def class_attribute(self, cls: UserClass, name: str) -> Abstract:
        """``Class.name``."""
        return calls.class_attribute(cls, name)

    def keep(self, value: Abstract) -> None:
        """A value goes into a container: note the calls whose result it is and may still be on the card."""
        for choice in choices(value):
            if isinstance(choice, Result) and choice.on_device:
                self.kept.add((id(choice.record), choice.call))
            elif isinstance(choice, Sequence):
                for item in choice.items[:20]:
                    if isinstance(item, Result):
                        self.keep(item)

    # -- statements -----------------------------------------------------------------------------------------------

    def block(self, body: list[ast.stmt]) -> None:
        for node in body:
            self.statement = node
            try:
                self._statement(node)
            except RecursionError:
                self.warnings.append(f"line {node.lineno}: nested too deeply, not read")
            self.statement = node

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr():
                evaluate(self, node.value)
            case ast.Assign():
                value = evaluate(self, node.value)
                for target in node.targets:
                    targets.assign(self, target, value, node.value)
            case ast.AnnAssign():
                if node.value is not None:
                    value = evaluate(self, node.value)
                    if self.scope.is_class:
                        value = options.parameter_default(value)
                    targets.assign(self, node.target, value, node.value)
            case ast.AugAssign():
                targets.augment(self, node)
            case ast.Import() | ast.ImportFrom():
                imports.bind(self, node)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                definitions.define_function(self, node)
            case ast.ClassDef():
                definitions.define_class(self, node)
            case ast.If():
                self._if(node)
            case ast.For() | ast.AsyncFor():
                self._for(node)
            case ast.While():
                evaluate(self, node.test)
                self._loop(node.body, node.lineno)
                self.block(node.orelse)
            case ast.With() | ast.AsyncWith():
                self._with(node)
            case ast.Try():
                self._try(node)
            case ast.Match():
                self._match(node)
            case ast.Return():
                value = evaluate(self, node.value) if node.value else Const(None)
                if self.returns and not (self.context.branches and self.condition()[1] is False):
                    self.returns[-1].append(value)
            case ast.Global() | ast.Nonlocal():
                self._declare(node)
            case ast.Delete():
                for gone in node.targets:
                    targets.delete(self, gone)
            case ast.Assert():
                evaluate(self, node.test)
            case ast.Raise():
                if node.exc is not None:
                    evaluate(self, node.exc)
            case _:
                if type(node).__name__ == "TryStar":
                    self._try(node)  # type: ignore[arg-type]

    def _if(self, node: ast.If) -> None:
        # An `elif` chain is a chain of nested nodes; it is walked in a loop, so that its length does not matter.
        outcomes: list[dict[str, Abstract]] = []
        exhaustive = False
        entered = len(self.context.branches)
        current: ast.If | None = node
        while current is not None:
            self.statement = current
            value = evaluate(self, current.test)
            holds = folding.truth(value)
            text = self.source.excerpt(self.source.span(current.test))
            silent = patterns.is_main_guard(current.test)
            outcomes += self._branch(current.body, None if silent else (text, holds), holds)
            if holds is True:
                exhaustive = True
            rest = current.orelse
            opposite = None if holds is None else not holds
            if silent and holds:
                break
            self.context.branches.append((f"not ({text})", opposite))
            current = rest[0] if len(rest) == 1 and isinstance(rest[0], ast.If) else None
            if current is None and rest:
                skipped = any(runs is False for _, runs in self.context.branches[entered:])
                outcomes += self._branch(rest, None, False if skipped else opposite)
                exhaustive = True
        del self.context.branches[entered:]
        self._merge(outcomes, exhaustive)

    def _branch(self, body: list[ast.stmt], test: Branch | None, holds: bool | None) -> list[dict[str, Abstract]]:
        """Read one branch on a layer of its own; the layer is kept unless the branch is known not to run."""
        layer: dict[str, Abstract] = {}
        self.scope.layers.append(layer)
        if test is not None:
            self.context.branches.append(test)
        scope = self.scope
        try:
            self.block(body)
        finally:
            scope.layers.pop()
            if test is not None:
                self.context.branches.pop()
        if holds is False or any(runs is False for _, runs in self.context.branches):
            return []
        if body and isinstance(body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break) and holds is None:
            return []
        return [layer]

    def _merge(self, outcomes: list[dict[str, Abstract]], exhaustive: bool) -> None:
        names = dict.fromkeys(name for layer in outcomes for name in layer)
        for name in names:
            before = self.scope.get(name)
            values = [layer.get(name, before) for layer in outcomes]
            if not exhaustive:
                values.append(before)
            self.scope.set(name, join(v for v in values if v is not None))

    def _for(self, node: ast.For | ast.AsyncFor) -> None:
        targets.assign(self, node.target, folding.element(evaluate(self, node.iter)), None)
        self._loop(node.body, node.lineno)
        self.block(node.orelse)

    def _loop(self, body: list[ast.stmt], line: int) -> None:
        self.context.loops.append(line)
        outcomes = self._branch(body, None, True)
        self.context.loops.pop()
        self._merge(outcomes, exhaustive=False)

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        before = self.context.grad_off, self.context.autocast, self.context.attention
        for item in node.items:
            value = evaluate(self, item.context_expr)
            name = called_name(value)
            self.context.grad_off += name in libraries.GRAD_OFF
            self.context.autocast += name in libraries.AUTOCAST
            self._choose_attention(value, item.context_expr)
            if item.optional_vars is not None:
                targets.assign(self, item.optional_vars, value, item.context_expr)
        self.block(node.body)
        self.context.grad_off, self.context.autocast, self.context.attention = before

    def _choose_attention(self, value: Abstract, node: ast.expr) -> None:
        if called_name(value) in libraries.ATTENTION_CONTEXTS and isinstance(node, ast.Call):
            self.context.attention = kernels.allowed(value, node) or ()
            told = Known(
                value=list(self.context.attention), certainty="derived" if self.context.attention else "unknown"
            )
            uses.setting(self, called_name(value), {"kernels": told}, self.source.span(node))

    def _try(self, node: ast.Try) -> None:
        self.block(node.body)
        outcomes = []
        for handler in node.handlers:
            outcomes += self._branch(handler.body, ("except", None), None)
        self._merge(outcomes, exhaustive=False)
        self.block(node.orelse)
        self.block(node.finalbody)

    def _match(self, node: ast.Match) -> None:
        subject = evaluate(self, node.subject)
        written = self.source.excerpt(self.source.span(node.subject))
        outcomes: list[dict[str, Abstract]] = []
        done = False
        for case in node.cases:
            holds = patterns.matches(self, case.pattern, subject)
            if case.guard is not None:
                evaluate(self, case.guard)
                holds = False if holds is False else None
            runs = False if done else holds
            for name in patterns.captured(case.pattern):
                self.scope.set(name, UNKNOWN)
            test = (f"match {written}, line {case.pattern.lineno}", runs)
            outcomes += self._branch(case.body, test, runs)
            done = done or holds is True
        self._merge(outcomes, exhaustive=done)

    def _declare(self, node: ast.Global | ast.Nonlocal) -> None:
        for name in node.names:
            scope: Scope | None = self.module if isinstance(node, ast.Global) else self.scope.parent
            while isinstance(node, ast.Nonlocal) and scope and not any(name in layer for layer in scope.layers):
                scope = scope.parent
            self.scope.outer[name] = scope or self.module

    # -- functions ------------------------------------------------------------------------------------------------

    def call_function(
        self, function: UserFunction, positional: list[Abstract], keywords: dict[str, Abstract]
    ) -> Abstract:
        """What the user's function returns; its body is read with these arguments unless that was done already."""
        given = definitions.signature_of(positional, keywords)
        if function.busy or self.context.depth >= 25:
            return function.returned
        if function.reads and (given in function.signatures or function.reads >= 4):
            return function.returned
        function.reads += 1
        function.signatures.add(given)
        function.busy = True
        outer, statement, context = self.scope, self.statement, self.context
        name = definitions.function_name(function)
        self.scope = Scope(name, function.scope)
        self.context = Context(
            list(context.loops), list(context.branches), context.grad_off + function.grad_off,
            context.autocast + function.autocast, context.attention, context.depth + 1,
        )  # fmt: skip
        self.returns.append([])
        try:
            definitions.bind_parameters(self, function, positional, keywords)
            if isinstance(function.node, ast.Lambda):
                self.returns[-1].append(evaluate(self, function.node.body))
            else:
                self.block(function.node.body)
        finally:
            returned = self.returns.pop()
            self.scope, self.statement, self.context = outer, statement, context
            function.busy = False
        if returned:
            function.returned = join(returned)
        elif function.returned is UNKNOWN:
            function.returned = Const(None, literal=False)
        return function.returned

    def instantiate(self, cls: UserClass, positional: list[Abstract], keywords: dict[str, Abstract]) -> Abstract:
        """An instance of the user's class; ``__init__`` is read."""
        instance = UserObject(cls)
        init = definitions.lookup(cls, "__init__")
        if isinstance(init, UserFunction):
            self.call_function(init, [instance, *positional], keywords)
        else:
            fields = [n for n in cls.scope.layers[0] if not n.startswith("_")]
            instance.attributes.update(zip(fields, positional, strict=False))
            instance.attributes.update(keywords)
        return instance

    def attribute(self, value: UserObject, name: str) -> Abstract:
        """An attribute of an instance: its own, then its class's."""
        for place in (value.attributes, value.cls.itself.attributes if value.cls.itself else {}):
            if name in place:
                return folding.derived(place[name])
        found = definitions.lookup(value.cls, name)
        if isinstance(found, UserFunction):
            if found.is_property:
                return self.call_function(found, [value], {})
            return found if found.is_static else Bound(found, value)
        return UNKNOWN if found is None else folding.derived(found)
