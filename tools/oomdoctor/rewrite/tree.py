"""The syntax tree of a script with what edits need: parents, enclosing statements, and nodes by position."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from oomdoctor.rewrite.text import Text
from oomdoctor.values import Span

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Tree:
    """A parsed script."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.module = text.parse()
        self.parents: dict[ast.AST, ast.AST] = {}
        waiting: list[ast.AST] = [self.module]
        while waiting:
            node = waiting.pop()
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node
                waiting.append(child)

    def nodes(self, kind: type[ast.AST]) -> Iterator[ast.AST]:
        return (node for node in self.parents if isinstance(node, kind))

    def statements(self) -> Iterator[ast.stmt]:
        return (node for node in self.parents if isinstance(node, ast.stmt))

    def statement(self, span: Span) -> ast.stmt | None:
        """The innermost statement that covers ``span``."""
        start, end = self.text.span(span)
        best: ast.stmt | None = None
        body: list[ast.stmt] = list(self.module.body)
        while body:
            inside = [s for s in body if self.text.node(s)[0] <= start and end <= self.text.node(s)[1]]
            inside = inside or [s for s in body if self._covers(s, start, end)]
            if not inside:
                break
            best = inside[0]
            body = [s for group in self.bodies(best) for s in group]
        return best

    def _covers(self, statement: ast.stmt, start: int, end: int) -> bool:
        """The same with decorators and the statement's own line break counted in."""
        first, last = self.text.node(statement)
        return first <= start <= last and end <= self.text.next_line(last)

    @staticmethod
    def bodies(node: ast.AST) -> list[list[ast.stmt]]:
        """The statement lists directly under a node (body, else, handlers, cases)."""
        found = [
            getattr(node, name)
            for name in ("body", "orelse", "finalbody")
            if isinstance(getattr(node, name, None), list)
        ]
        for name in ("handlers", "cases"):
            found += [part.body for part in getattr(node, name, [])]
        return found

    def body_of(self, statement: ast.stmt) -> list[ast.stmt]:
        """The list of statements that this one is an element of."""
        parent = self.parents[statement]
        for body in self.bodies(parent):
            if any(s is statement for s in body):
                return body
        raise ValueError("a statement without a body")

    def in_body(self, body: list[ast.stmt], node: ast.AST) -> int | None:
        """Index of the element of ``body`` that holds ``node``; None when it is somewhere else."""
        known = {id(s): i for i, s in enumerate(body)}
        current: ast.AST | None = node
        while current is not None:
            if id(current) in known:
                return known[id(current)]
            current = self.parents.get(current)
        return None

    def call(self, span: Span) -> ast.Call | None:
        """The call expression that ``span`` marks: the largest one inside it."""
        start, end = self.text.span(span)
        best: tuple[int, ast.Call] | None = None
        for node in self.nodes(ast.Call):
            assert isinstance(node, ast.Call)
            first, last = self.text.node(node)
            if start <= first and last <= end and (best is None or last - first > best[0]):
                best = (last - first, node)
        return best[1] if best else None

    def function_of(self, node: ast.AST) -> ast.AST | None:
        """The function that holds ``node``; None at module or class level."""
        current = self.parents.get(node)
        while current is not None and not isinstance(current, _FUNCTIONS):
            current = self.parents.get(current)
        return current

    def visible_from(self, node: ast.AST, other: ast.AST) -> bool:
        """A name bound by ``node`` can be read at ``other``: same function, an enclosing one, or the module."""
        home = self.function_of(node)
        current: ast.AST | None = other
        while current is not None:
            current = self.function_of(current)
            if current is home:
                return True
        return False
