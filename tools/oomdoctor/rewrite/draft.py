"""The verbs with which a technique writes itself into a script. A draft collects edits; nothing is changed before
:meth:`Draft.edits` is asked for, and every line that no edit names stays byte for byte as it was.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from oomdoctor.rewrite import anchors, arguments, branches, placement, prompts
from oomdoctor.rewrite.edits import Edit
from oomdoctor.rewrite.imports import Imports
from oomdoctor.rewrite.removal import removals
from oomdoctor.rewrite.text import Text
from oomdoctor.rewrite.tree import Tree
from oomdoctor.techniques.base import Context
from oomdoctor.values import Call, Known, Loaded, Optimisation, Placement, Span

_LAST = 10_000
"""Rank of what stands directly above the call (or the return), below everything that stands after loading."""


@dataclass(frozen=True, slots=True)
class _Insertion:
    lines: tuple[str, ...]
    phase: int
    technique: str
    reason: str
    before: bool = False


class Draft:
    """Edits of one script for one of its pipelines."""

    def __init__(self, source: str, context: Context) -> None:
        self.context = context
        self.use, self.script = context.use, context.script
        self.text = Text(source)
        self.tree = Tree(self.text)
        self.load = self.tree.statement(self.use.load_statement)
        self.imports = Imports(self.tree, self.load)
        self.warnings: list[str] = []
        self.hand: list[str] = []
        self.removed: dict[ast.stmt, tuple[str, str]] = {}
        """Statements that go -> technique and reason."""
        self.unplaced: list[Placement] = []
        """Placements that were taken out."""
        self.vacant: ast.stmt | None = None
        """A statement that was alone in its block and is not needed any more: an offload call may take its place."""
        self.filled: ast.stmt | None = None
        """The same once something has taken its place."""
        self._moved_in: list[tuple[str, str, str]] = []
        """What takes it: line, technique, reason."""
        self.opened: dict[ast.AST, int] = {}
        """Blocks whose statements are taken out of them -> by how much these move to the left."""
        self.kept: dict[ast.stmt, int] = {}
        """Statements of techniques that stay, with their phase."""
        self._edits: list[Edit] = []
        self._insertions: list[_Insertion] = []
        self._technique = ""
        self._arguments: dict[ast.Call, dict[str, tuple[str | None, str, str]]] = {}
        self.renews = False
        """What the technique takes out now, it writes anew."""
        self._retyped: tuple[str, str] | None = None
        """Technique and reason for which moves lose their dtype."""
        self._returned = isinstance(self.load, ast.Return)
        self.pipe = self.use.variable if self.use.variable.strip() and not self._returned else "pipe"

    @contextmanager
    def writing(self, technique: str, renews: bool = False) -> Iterator[None]:
        """Edits made inside are this technique's; ``renews``: what it takes out, it writes anew."""
        before, self._technique, self.renews = self._technique, technique, renews
        yield
        self._technique, self.renews = before, False

    # -- words ---------------------------------------------------------------------------------------------------

    def name(self, qualified: str, alias: str | None = None) -> str:
        """How this script writes ``torch.bfloat16`` and the like; a missing import is added (under ``alias``)."""
        return self.imports.name(qualified, alias)

    def bare(self, qualified: str) -> str:
        """The last word of it, imported from its module: ``sdpa_kernel`` of ``torch.nn.attention``."""
        return self.imports.bare(qualified)

    def compute_dtype(self, component: str) -> str:
        """How to write the dtype that a component computes in; bf16, with a warning, where it cannot be known."""
        known = self.context.compute_dtype(component)
        written = self.context.dtype_as_written(component)
        if known is None and written is None:
            self.warn(f"The dtype of the {component} is decided at run time; it is taken to compute in bfloat16.")
        return self.name(f"torch.{known or 'bfloat16'}") if known or not written else written

    def quote(self, words: str) -> str:
        """A string literal in the script's own quotation marks."""
        mark = self.text.quote
        return f"{mark}{words}{mark}"

    def written(self, known: Known) -> str:
        """An expression of the script, in full and as it stands there."""
        if known.span is None:
            return known.text or repr(known.value)
        start, end = self.text.span(known.span)
        return self.text.source[start:end]

    def component(self, name: str) -> str:
        """``pipe.transformer``."""
        return f"{self.pipe}.{name}" if self.use.kind == "pipeline" else self.pipe

    def call(self, function: str, *written: str) -> str:
        """``function(a, b)``, one argument per line when it would be long."""
        line = f"{function}({', '.join(written)})"
        if len(line) <= 110 or len(written) < 2:
            return line
        unit = self.text.indent_unit
        return "\n".join([f"{function}(", *(f"{unit}{w}," for w in written), ")"])

    # -- loading -------------------------------------------------------------------------------------------------

    def set_load_argument(self, name: str, value: str, reason: str, loaded: Loaded | None = None) -> bool:
        """The call that loads the pipeline (or the component ``loaded``) passes ``name=value``.

        False, with a line for the person, where the call cannot be found or hides its arguments behind ``**``.
        """
        call = self.load_call(loaded)
        if call is None or (arguments.has_double_star(call) and arguments.find(call, name) is None):
            line = loaded.span.line if loaded and loaded.span else self.use.load_statement.line
            self.by_hand(
                f"Line {line}: pass `{name}={value}` to the call that loads the {'model' if loaded else 'pipeline'}."
            )
            return False
        self.set_keyword(call, name, value, reason)
        return True

    def remove_load_argument(self, name: str, reason: str, loaded: Loaded | None = None) -> None:
        call = self.load_call(loaded)
        if call is not None:
            self.unset_keyword(call, name, reason)

    def load_call(self, loaded: Loaded | None = None) -> ast.Call | None:
        """The call expression that loads the pipeline, or one of its components."""
        span = loaded.span if loaded is not None else self.use.load_span
        return self.tree.call(span) if span is not None else None

    def before_load(self, lines: Sequence[str], reason: str, phase: int = 0) -> None:
        """Statements above the one that loads (above its first separately loaded component where names allow it)."""
        self._insertions.append(_Insertion(tuple(lines), phase, self._technique, reason, before=True))

    def before_load_for(self, name: str, write: Callable[[], str], reason: str, used: str, phase: int) -> None:
        """``write`` gives the statement that binds ``name``, and the pipeline is loaded with ``name=name``.

        Where the call hides its arguments both are left to a person: one without the other would be of no use.
        """
        call = self.load_call()
        keyword, _, value = name.rpartition("=") if "=" in name else (name, "", name)
        if call is None or (arguments.has_double_star(call) and arguments.find(call, keyword) is None):
            said = " ".join(self.imports.aside(write).split()).replace("( ", "(").replace("{ ", "{")
            self.by_hand(f"Above line {self.use.load_statement.line}, add: `{said}`")
        else:
            self.before_load([write()], reason, phase)
        self.set_load_argument(keyword, value, used)

    def after_load(self, lines: Sequence[str], phase: int, reason: str) -> None:
        """Statements below loading, adapters and placement, ordered by phase, above the first call."""
        if not lines:
            return
        if self.vacant is not None and phase == placement.OFFLOAD_PHASE:
            self._moved_in += [(line, self._technique, reason) for line in lines]
            return
        self._insertions.append(_Insertion(tuple(lines), phase, self._technique, reason))

    # -- placement -----------------------------------------------------------------------------------------------

    def remove_placement(self, reason: str) -> None:
        """No ``.to("cuda")`` is left: offloading moves the weights itself. What is decided at run time stays."""
        placement.remove(self, reason)

    def postpone_placement(self, reason: str) -> None:
        """``.to("cuda")`` comes after what changes the weights in place, so that the card never holds the full size."""
        placement.postpone(self, reason)

    def restore_placement(self, reason: str) -> None:
        """The pipeline goes to the card as a whole, unless something already puts it there."""
        placement.take_back_resets(self, reason)
        placement.gather(self, reason)
        if not placement.on_card(self):
            self.after_load([f"{self.pipe}.to({self.quote('cuda')})"], placement.OFFLOAD_PHASE, reason)

    def drop_dtypes(self, reason: str) -> None:
        """No move of the pipeline changes its dtype: what a move that stays says of it goes."""
        self._retyped = (self._technique, reason)

    # -- statements and calls ------------------------------------------------------------------------------------

    def remove_optimisation(self, found: Optimisation, reason: str) -> None:
        """Take out the statement that uses a technique, or its link of a longer chain."""
        statement = self.tree.statement(found.statement or found.span)
        if statement is not None and not (self._places() and branches.vacate(self, statement)):
            self.remove_statement(statement, reason)

    def _places(self) -> bool:
        """The technique that writes puts the pipeline where it runs."""
        return anchors.stood_at(self._technique) == placement.OFFLOAD_PHASE

    def remove_statement(self, statement: ast.stmt, reason: str) -> None:
        """A statement and its line go; one that is alone in its block becomes ``pass``."""
        self.removed.setdefault(statement, (self._technique, reason))

    def replace(self, span: Span, new: str, reason: str) -> None:
        start, end = self.text.span(span)
        self.edit(start, end, new, reason)

    def set_call_argument(self, call: Call, name: str, value: str, reason: str) -> bool:
        """The call of the pipeline passes ``name=value``."""
        node = self.tree.call(call.span)
        if node is None or (arguments.has_double_star(node) and arguments.find(node, name) is None):
            self.by_hand(f"Line {call.span.line}: pass `{name}={value}` to the call.")
            return False
        self.set_keyword(node, name, value, reason)
        return True

    def remove_call_argument(self, call: Call, name: str, reason: str) -> None:
        node = self.tree.call(call.span)
        if node is not None:
            self.unset_keyword(node, name, reason)

    def remove_argument_at(self, span: Span, name: str, reason: str) -> None:
        """Some call of the script, marked by its span, no longer passes ``name``."""
        node = self.tree.call(span)
        if node is not None:
            self.unset_keyword(node, name, reason)

    def rename_method(self, span: Span, old: str, new: str, reason: str) -> None:
        """``pipe.old(...)`` becomes ``pipe.new(...)``."""
        node = self.tree.call(span)
        if node is not None and isinstance(node.func, ast.Attribute) and node.func.attr == old:
            end = self.text.node(node.func)[1]
            self.edit(end - len(old), end, new, reason)

    def remove_calls(self, endings: Sequence[str], reason: str) -> None:
        """Statements that are nothing but a call of a function whose dotted name ends so."""
        for node in list(self.tree.statements()):
            called = node.value if isinstance(node, ast.Expr) else None
            if isinstance(called, ast.Call) and ast.unparse(called.func).endswith(tuple(endings)):
                self.remove_statement(node, reason)

    def replace_prompt(self, call: Call, names: Sequence[str], reason: str) -> None:
        """The call takes the variables ``names`` as keywords instead of its prompt."""
        prompts.replace_prompt(self, call, names, reason)

    def restore_prompt(self, reason: str) -> None:
        """The call takes its prompt again, and what encoded it in advance goes."""
        prompts.restore_prompt(self, reason)

    def before_call(self, lines: Sequence[str], reason: str) -> bool:
        """Statements above the first call of the pipeline; False where there is no call to stand above."""
        statement = self.tree.statement(self.use.calls[0].span) if self.use.calls else None
        while statement is not None and isinstance(block := self.tree.parents.get(statement), ast.With):
            if len(block.body) > 1:
                break
            statement = block  # a block around nothing but the call is the call's own
        if statement is None or not self.begins_line(statement):
            return False
        start = self.text.node(statement)[0]
        indent = self.text.indent(start)
        at = self.text.line_start(start)
        self.edit(at, at, self._block(lines, indent) + self.text.newline, reason, rank=_LAST)
        return True

    def before_imports(self, lines: Sequence[str], needs: str, reason: str) -> None:
        """Statements above the first import of torch or of what imports it; ``import needs`` comes along if missing."""
        for start, end, new, rank in self.imports.above_torch(self._block(lines, "") + self.text.newline, needs):
            self.edit(start, end, new, reason if rank == -2 else "", rank=rank)

    # -- what cannot be written ----------------------------------------------------------------------------------

    def warn(self, words: str) -> None:
        if words not in self.warnings:
            self.warnings.append(words)

    def by_hand(self, words: str) -> None:
        """Something a person has to do, with the exact line to write."""
        if words not in self.hand:
            self.hand.append(words)

    # -- machinery -----------------------------------------------------------------------------------------------

    def edit(self, start: int, end: int, new: str, reason: str, rank: int = 0) -> None:
        """``source[start:end]`` becomes ``new``."""
        if self.text.source[start:end] != new or start == end:
            self._edits.append(Edit(start, end, new, self._technique, reason, rank))

    def edits(self) -> list[Edit]:
        """Everything that was asked for, as edits of the original text."""
        if self.vacant is not None and self._moved_in:
            self.filled, (_, technique, reason) = self.vacant, self._moved_in[0]
            with self.writing(technique):
                self._replace_statement(self.vacant, [line for line, _, _ in self._moved_in], reason)
        elif self.vacant is not None:
            self.remove_statement(self.vacant, "Offloading places the weights; nothing is left to do here.")
        self.vacant = None
        branches.collapse(self)
        if self._retyped is not None:
            with self.writing(self._retyped[0]):
                placement.drop_dtypes(self, self._retyped[1])
            self._retyped = None
        for insertion in sorted(self._insertions, key=lambda i: i.phase):
            self._place(insertion)
        self._insertions.clear()
        inserted = {edit.start for edit in self._edits if edit.start == edit.end}
        for statement, start, end, new in removals(self.tree, self.removed, inserted):
            technique, reason = self.removed.get(statement) or next(iter(self.removed.values()))
            self._edits.append(Edit(start, end, new, technique, reason))
        wanted = [Edit(a, b, new, "", "", rank=-1) for a, b, new in self.imports.changes()]
        return [*self._edits, *self._argument_edits(), *wanted]

    def set_keyword(self, call: ast.Call, name: str, value: str, reason: str) -> None:
        """A call passes ``name=value``, whatever was asked for that keyword before."""
        self._arguments.setdefault(call, {})[name] = (value, self._technique, reason)

    def unset_keyword(self, call: ast.Call, name: str, reason: str) -> None:
        """A call no longer passes ``name``."""
        if arguments.find(call, name) is not None:
            self._arguments.setdefault(call, {})[name] = (None, self._technique, reason)

    def _argument_edits(self) -> list[Edit]:
        found: list[Edit] = []
        for call, asked in self._arguments.items():
            wanted = {name: value for name, (value, _, _) in asked.items()}
            for name, (start, end, new) in arguments.changes(self.text, call, wanted):
                _, technique, reason = asked[name]
                found.append(Edit(start, end, new, technique, reason))
        return found

    def _place(self, insertion: _Insertion) -> None:
        before, lines = insertion.before, insertion.lines
        anchor = anchors.first_loading(self, lines) if before else anchors.anchor(self, insertion.phase)
        if anchor is None or not self.begins_line(anchor) or not (insertion.before or self._named()):
            where = "Before" if insertion.before else "After"
            words = "; ".join(" ".join(x.strip() for x in line.split("\n")) for line in insertion.lines)
            self.by_hand(f"{where} line {self.use.load_statement.line}, add: `{words}`")
            return
        start, end = self.text.node(anchor)
        block = self._block(insertion.lines, self.text.indent(start))
        with self.writing(insertion.technique):
            if insertion.before or anchor in self.removed:
                at = self.text.line_start(start)
                self.edit(at, at, block + self.text.newline, insertion.reason, insertion.phase)
                return
            if self._returned and anchor is self.load:
                self._unreturn(block, insertion)
                return
            at = self.text.next_line(end)
            last = self.text.is_last_line(end)
            new = self.text.newline + block if last else block + self.text.newline
            self.edit(at, at, new, insertion.reason, insertion.phase)

    def _named(self) -> bool:
        """The loading statement binds the variable that the new lines will use."""
        if self._returned:
            return isinstance(self.load, ast.Return) and self.load.value is not None
        targets: list[ast.expr] = []
        if isinstance(self.load, ast.Assign):
            targets = self.load.targets
        elif isinstance(self.load, ast.AnnAssign):
            targets = [self.load.target]
        return bool(self.use.variable) and any(ast.unparse(t) == self.pipe for t in targets)

    def _unreturn(self, block: str, insertion: _Insertion) -> None:
        """``return load()`` becomes ``pipe = load()``, the lines, ``return pipe``."""
        assert isinstance(self.load, ast.Return) and self.load.value is not None
        start, end = self.text.node(self.load)
        indent, newline = self.text.indent(start), self.text.newline
        self.edit(start, start + len("return"), f"{self.pipe} =", insertion.reason)
        last = self.text.is_last_line(end)
        at = self.text.next_line(end)
        self.edit(at, at, newline + block if last else block + newline, insertion.reason, insertion.phase)
        back = f"{indent}return {self.pipe}"
        self.edit(at, at, newline + back if last else back + newline, "", _LAST)

    def begins_line(self, statement: ast.stmt) -> bool:
        """Nothing stands before it on its line."""
        start = self.text.node(statement)[0]
        return not self.text.source[self.text.line_start(start) : start].strip()

    def _block(self, lines: Sequence[str], indent: str) -> str:
        rows = [row for line in lines for row in line.split("\n")]
        return self.text.newline.join(f"{indent}{row}" if row else row for row in rows)

    def _replace_statement(self, statement: ast.stmt, lines: Sequence[str], reason: str) -> None:
        start, end = self.text.node(statement)
        self.edit(start, end, self._block(lines, self.text.indent(start)).lstrip(" \t"), reason)
