"""The arguments of a call, with their values and where each is written."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oomdoctor.script.domain import Abstract, Mapping, Sequence
from oomdoctor.script.expressions import evaluate
from oomdoctor.script.known import known, plain
from oomdoctor.values import Known

if TYPE_CHECKING:
    from oomdoctor.script.interpreter import Interpreter


@dataclass(slots=True)
class Argument:
    """One argument. ``spread``: it came out of a ``*`` or ``**``, so it has no place of its own in the text."""

    value: Abstract
    node: ast.expr
    keyword: ast.keyword | None = None
    spread: bool = False


@dataclass(slots=True)
class Arguments:
    positional: list[Argument] = field(default_factory=list)
    keywords: dict[str, Argument] = field(default_factory=dict)
    unfollowed: list[ast.expr] = field(default_factory=list)
    """``*x`` and ``**x`` whose content is not known."""
    spread: list[Abstract] = field(default_factory=list)
    """What was spread with ``**``."""

    def values(self) -> list[Abstract]:
        return [a.value for a in self.positional]

    def named(self) -> dict[str, Abstract]:
        return {name: a.value for name, a in self.keywords.items()}

    def everything(self) -> list[Argument]:
        return [*self.positional, *self.keywords.values()]

    def get(self, position: int, *names: str) -> Argument | None:
        """The argument at a position or under one of the names."""
        for name in names:
            if name in self.keywords:
                return self.keywords[name]
        return self.positional[position] if 0 <= position < len(self.positional) else None

    def without_first(self) -> Arguments:
        return Arguments(self.positional[1:], self.keywords, self.unfollowed, self.spread)


def read(reader: Interpreter, node: ast.Call) -> Arguments:
    """Evaluate the arguments of a call, each once, from left to right."""
    out = Arguments()
    for part in node.args:
        value = evaluate(reader, part)
        if not isinstance(part, ast.Starred):
            out.positional.append(Argument(value, part))
        elif isinstance(value, Sequence) and not value.open:
            out.positional += [Argument(item, part, spread=True) for item in value.items]
        else:
            out.unfollowed.append(part)
    for keyword in node.keywords:
        value = evaluate(reader, keyword.value)
        if keyword.arg is not None:
            out.keywords[keyword.arg] = Argument(value, keyword.value, keyword)
            continue
        out.spread.append(value)
        if isinstance(value, Mapping):
            for name, item in value.items.items():
                out.keywords.setdefault(name, Argument(item, keyword.value, spread=True))
        if not isinstance(value, Mapping) or value.open:
            out.unfollowed.append(keyword.value)
    return out


def fact(reader: Interpreter, argument: Argument) -> Known:
    """What an argument tells."""
    if not argument.spread:
        return known(argument.value, argument.node, reader.source, argument.keyword)
    value, certain, _ = plain(argument.value)
    return Known(
        value=value if certain else None,
        certainty="derived" if certain else "unknown",
        line=argument.node.lineno,
    )


def facts(reader: Interpreter, arguments: Arguments) -> dict[str, Known]:
    """All arguments: positional ones by number."""
    out = {str(i): fact(reader, a) for i, a in enumerate(arguments.positional)}
    out.update({name: fact(reader, a) for name, a in arguments.keywords.items()})
    return out
