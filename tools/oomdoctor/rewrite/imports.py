"""Which name stands for what in a script, and where a missing import goes."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable

from oomdoctor.rewrite.text import Text
from oomdoctor.rewrite.tree import Tree

Change = tuple[int, int, str]
_HEAVY = ("torch", "diffusers", "transformers", "accelerate", "torchvision", "xformers", "bitsandbytes", "peft")
"""What imports torch, or is it."""


class Imports:
    """The imports of a script as seen from one place in it (the statement that loads the pipeline)."""

    def __init__(self, tree: Tree, place: ast.stmt | None) -> None:
        self.tree, self.text, self.place = tree, tree.text, place
        self._statements = [
            n for n in tree.nodes(ast.stmt) if isinstance(n, ast.Import | ast.ImportFrom) and self._seen(n)
        ]
        self._wanted: dict[tuple[str, str | None], None] = {}

    def _seen(self, node: ast.stmt) -> bool:
        if self.place is None:
            return self.tree.function_of(node) is None
        return self.tree.visible_from(node, self.place) and self.text.node(node)[0] < self.text.node(self.place)[0]

    def name(self, qualified: str, alias: str | None = None) -> str:
        """How the script writes ``qualified`` (``torch``, ``torch.bfloat16``, ``diffusers.hooks.apply_x``).

        When nothing gives access to it yet, the import is noted and :meth:`changes` will add it, as ``alias`` where
        another import has that name.
        """
        best: tuple[int, str] | None = None
        for bound, meaning in self._bound():
            if qualified == meaning or qualified.startswith(meaning + "."):
                candidate = (len(meaning), bound + qualified[len(meaning) :])
                best = max(best, candidate) if best else candidate
        module, _, attribute = qualified.rpartition(".")
        if best is not None and (best[1].count(".") <= 1 or module.split(".")[0] == "torch"):
            return best[1]
        if module and module.split(".")[0] != "torch" and module != "os":
            self._wanted[(module, f"{attribute} as {alias}" if alias else attribute)] = None
            return alias or attribute
        root = qualified.split(".")[0]
        self._wanted[(root, None)] = None
        return qualified

    def bare(self, qualified: str) -> str:
        """The last word alone, imported from its module, however the module itself may be written here."""
        for bound, meaning in self._bound():
            if meaning == qualified:
                return bound
        module, _, attribute = qualified.rpartition(".")
        self._wanted[(module, attribute)] = None
        return attribute

    def aside(self, write: Callable[[], str]) -> str:
        """What ``write`` says, behind the imports that it needs: for a person to add, so the script gets none."""
        kept, self._wanted = self._wanted, {}
        written = write()
        needed = [f"from {m} import {name}" if name else f"import {m}" for m, name in self._wanted]
        self._wanted = kept
        return "; ".join([*needed, written])

    def _bound(self) -> list[tuple[str, str]]:
        pairs = []
        for node in self._statements:
            if isinstance(node, ast.Import):
                pairs += [
                    (a.asname or a.name.split(".")[0], a.name if a.asname else a.name.split(".")[0]) for a in node.names
                ]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                pairs += [(a.asname or a.name, f"{node.module}.{a.name}") for a in node.names if a.name != "*"]
        return pairs

    def changes(self) -> list[Change]:
        """Insertions that bring in every name that was asked for and is not there."""
        changes: list[Change] = []
        grouped: dict[str, list[str]] = {}
        for module, attribute in self._wanted:
            if attribute is None:
                changes.append(self._new_line(f"import {module}", before=True))
            else:
                grouped.setdefault(module, []).append(attribute)
        for module, names in sorted(grouped.items()):
            extended = self._extend(module, names)
            line = f"from {module} import {', '.join(sorted(names))}"
            changes += extended or [self._sorted_in(module, line) or self._new_line(line, before=False)]
        return changes

    def _sorted_in(self, module: str, line: str) -> Change | None:
        """Among imports of its kind (the standard library, diffusers) where these stand in order; else None."""
        reference = self._reference()
        if reference is None:
            return None
        root, body = module.split(".")[0], self.tree.body_of(reference)
        near = [s for s in body if any(s is known for known in self._statements) and not _is_future(s)]
        if root in sys.stdlib_module_names:
            kind = [s for s in near if _module(s).split(".")[0] in sys.stdlib_module_names]
            return self._line_at(kind[-1], line, below=True) if kind else self._line_at(near[0], line)
        kind = [s for s in near if isinstance(s, ast.ImportFrom) and _module(s).split(".")[0] == root]
        modules = [_module(s) for s in kind]
        later = [s for s in kind if _module(s) > module]
        return self._line_at(later[0], line) if root == "diffusers" and later and modules == sorted(modules) else None

    def _line_at(self, statement: ast.stmt, line: str, below: bool = False) -> Change | None:
        """``line`` above or below a statement that has its line to itself."""
        start, end = self.text.node(statement)
        if self.text.source[self.text.line_start(start) : start].strip() or (below and self.text.is_last_line(end)):
            return None
        at = self.text.next_line(end) if below else self.text.line_start(start)
        return (at, at, f"{self.text.indent(start)}{line}{self.text.newline}")

    def _reference(self) -> ast.stmt | None:
        """The import to stand next to: the last one of diffusers, or the last one at all."""
        ours = [s for s in self._statements if _of_diffusers(s)]
        candidates = ours or [s for s in self._statements if not _is_future(s)]
        return max(candidates, key=lambda s: self.text.node(s)[0], default=None)

    def _new_line(self, line: str, before: bool) -> Change:
        reference = self._reference()
        newline = self.text.newline
        if reference is None:
            at = self.top()
            return (at, at, f"{line}{newline}")
        start, end = self.text.node(reference)
        if before:
            if isinstance(reference, ast.ImportFrom):
                first = min(
                    (s for s in self._statements if self._adjoins(s, reference)),
                    key=lambda s: self.text.node(s)[0],
                    default=reference,
                )
                start = self.text.node(first)[0]
            at = self.text.line_start(start)
            return (at, at, f"{self.text.indent(start)}{line}{newline}")
        at = self.text.next_line(end)
        indent = self.text.indent(start)
        if self.text.is_last_line(end):
            return (at, at, f"{newline}{indent}{line}")
        return (at, at, f"{indent}{line}{newline}")

    def _adjoins(self, statement: ast.stmt, reference: ast.stmt) -> bool:
        """A ``from`` import of diffusers in the same body as ``reference``: the new line goes above all of them."""
        same = isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == "diffusers"
        return same and self.tree.parents[statement] is self.tree.parents[reference]

    def top(self) -> int:
        """After the module's docstring and ``from __future__`` lines."""
        at = self.text.start
        for index, statement in enumerate(self.tree.module.body):
            docstring = index == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if not (docstring and isinstance(statement.value.value, str)) and not _is_future(statement):  # type: ignore[attr-defined]
                break
            at = self.text.next_line(self.text.node(statement)[1])
        else:
            return at
        first = self.tree.module.body[0]
        if at == self.text.start:
            at = self.text.line_start(self.text.node(first)[0])
        return at

    def above_torch(self, block: str, needs: str) -> list[tuple[int, int, str, int]]:
        """(start, end, text, rank): ``block`` above the first import of torch or of what imports it, and ``import
        needs`` beside the plain imports above that, or with it."""
        at, body = self.top(), self.tree.module.body
        first = len(body)
        for index, statement in enumerate(body):
            names = [a.name for a in statement.names] if isinstance(statement, ast.Import) else []
            names += [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
            if any(name.split(".")[0] in _HEAVY for name in names):
                at, first = self.text.line_start(self.text.node(statement)[0]), index
                break
        above = [s for s in body[:first] if isinstance(s, ast.Import)]
        changes = [(at, at, block, -2)]
        if not any(a.name == needs and not a.asname for s in above for a in s.names):
            beside = self.text.next_line(self.text.node(above[-1])[1]) if above else at
            changes.append((beside, beside, f"import {needs}{self.text.newline}", -3))
        return changes

    def _extend(self, module: str, names: list[str]) -> list[Change]:
        """Add to an existing one-line ``from module import ...``; nothing when there is none that is safe to touch."""
        for node in self._statements:
            if not isinstance(node, ast.ImportFrom) or node.module != module or node.level or node.names[0].name == "*":
                continue
            start, end = self.text.node(node)
            written = self.text.source[start:end]
            last = self.text.node(node.names[-1])[1]
            if "\n" not in written and "\r" not in written:
                present = [a.name for a in node.names]
                is_sorted = present == sorted(present) and not any(a.asname for a in node.names)
                if len(written) + sum(len(n) + 2 for n in names) > 119:
                    continue
                if is_sorted and written.rstrip().endswith(present[-1]):
                    first = self.text.node(node.names[0])[0]
                    return [(first, last, ", ".join(sorted({*present, *names})))]
                return [(last, last, "".join(f", {n}" for n in sorted(names)))]
            indent = self.text.indent(self.text.node(node.names[-1])[0])
            if self.text.line_of(last) < self.text.line_of(end) and self.text.source[last : last + 1] == ",":
                return [(last + 1, last + 1, "".join(f"{self.text.newline}{indent}{n}," for n in sorted(names)))]
        return []


def _of_diffusers(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.ImportFrom):
        return (statement.module or "").split(".")[0] == "diffusers"
    return isinstance(statement, ast.Import) and statement.names[0].name.split(".")[0] == "diffusers"


def _module(statement: ast.stmt) -> str:
    if isinstance(statement, ast.ImportFrom):
        return "." * statement.level + (statement.module or "")
    return statement.names[0].name if isinstance(statement, ast.Import) else ""


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def unused_after(before: Tree, after_source: str) -> list[Change]:
    """Changes to ``after_source`` that drop imports whose last use the edits took away.

    An import that was unused before stays: it is none of our business.
    """
    text = Text(after_source)
    tree = Tree(text)
    used_before, used_now = _used(before), _used(tree)
    changes: list[Change] = []
    for node in tree.nodes(ast.stmt):
        if not isinstance(node, ast.Import | ast.ImportFrom) or _is_future(node):
            continue
        gone = [a for a in node.names if (n := a.asname or a.name.split(".")[0]) in used_before and n not in used_now]
        if not gone:
            continue
        start, end = text.node(node)
        if len(gone) == len(node.names):
            alone = (
                not text.source[text.line_start(start) : start].strip()
                and not text.source[end : text.line_end(end)].strip()
            )
            body = tree.body_of(node)
            if alone and len(body) > 1:
                changes.append((text.line_start(start), text.next_line(end), ""))
            continue
        for alias in gone:
            first, last = text.node(alias)
            following = [text.node(a)[0] for a in node.names if text.node(a)[0] > first]
            preceding = [text.node(a)[1] for a in node.names if text.node(a)[1] < first]
            if following and text.source[last : min(following)].strip() == ",":
                changes.append((first, min(following), ""))
            elif preceding and text.source[max(preceding) : first].strip() == ",":
                changes.append((max(preceding), last, ""))
    return changes


def _used(tree: Tree) -> set[str]:
    """Names that are read anywhere, strings of ``__all__`` included."""
    names = {n.id for n in tree.nodes(ast.Name) if isinstance(n, ast.Name)}
    return names | {
        n.value for n in tree.nodes(ast.Constant) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }
