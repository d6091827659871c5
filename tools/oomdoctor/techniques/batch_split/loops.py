"""Writing a call as a loop over fewer pictures at a time, knowing such a loop again, and making one call of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oomdoctor.rewrite import blocks
from oomdoctor.script.results import pictures_of
from oomdoctor.values import Call

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

COUNT = "num_images_per_prompt"
PER_PICTURE = (
    "image",
    "mask_image",
    "control_image",
    "latents",
    "prompt_embeds",
    "negative_prompt",
    "generator",
    "prompt_2",
)
"""Arguments that may hold one entry per picture."""
SLICE = re.compile(r"(\w+)\[i : i \+ (\d+)\]\Z")


@dataclass(frozen=True)
class Place:
    """The call, the pictures it gives (``call.images``), and the statement that takes them."""

    call: ast.Call
    pictures: ast.Attribute
    statement: ast.stmt
    value: ast.expr

    @property
    def target(self) -> ast.expr | None:
        """``name`` of ``name = call.images``; None where more is done with the pictures."""
        one = self.statement
        plain = isinstance(one, ast.Assign) and len(one.targets) == 1 and self.value is self.pictures
        return one.targets[0] if plain and isinstance(one, ast.Assign) else None


def place_of(draft: Draft, call: Call) -> Place | None:
    """Where the call stands, when its pictures can be joined."""
    statement, node = draft.tree.statement(call.span), draft.tree.call(call.span)
    pictures = pictures_of(statement, node) if node is not None else None
    value = getattr(statement, "value", None)
    if statement is None or node is None or pictures is None or value is None:
        return None
    return Place(node, pictures, statement, value)


def write_loop(draft: Draft, place: Place, head: list[str], reason: str) -> None:
    """``images = []``, ``head`` (its last line begins the loop), the call inside, and what is done with the pictures."""
    text = draft.text
    start, end = text.node(place.statement)
    first, last = text.node(place.pictures)
    target = place.target
    simple = isinstance(target, ast.Name | ast.Attribute)
    name = ast.unparse(target) if simple and target is not None else free_name(draft, "all_images")
    indent, newline = blocks.outer_indent(draft, place.statement), text.newline
    rows = [*head[:-1], f"{name} = []", head[-1]]
    at = text.line_start(start)
    draft.edit(at, at, newline.join(indent + row for row in rows) + newline, reason, rank=blocks.HEAD)
    blocks.indent(draft, place.statement)
    draft.edit(start, first, f"{name} += ", "", rank=blocks.INDENT + 1)
    if not simple:
        rest = text.source[start:first] + name + text.source[last:end]
        draft.edit(last, end, f"{newline}{indent}{rest}", "")


def free_name(draft: Draft, *wanted: str) -> str:
    """The first of the names that the script does not use."""
    taken = {n.id for n in draft.tree.nodes(ast.Name) if isinstance(n, ast.Name)}
    return next(n for n in (*wanted, *(f"{wanted[0]}_{i}" for i in range(2, 1000))) if n not in taken)


# ------------------------------------------------------------------------------------------------------- and back again
@dataclass(frozen=True)
class Loop:
    """``for ...: images += call.images`` with ``images = []`` before it, and what takes the pictures after it."""

    loop: ast.For
    body: ast.AugAssign
    pictures: ast.Attribute
    before: ast.Assign | None
    after: ast.stmt | None
    """The one statement after the loop that reads the pictures, when nothing else does."""
    read: ast.Name | None


def loop_of(draft: Draft, call: Call) -> Loop | None:
    """The loop around a call, as :func:`write_loop` writes it."""
    statement, node = draft.tree.statement(call.span), draft.tree.call(call.span)
    loop = draft.tree.parents.get(statement) if statement is not None else None
    if not isinstance(statement, ast.AugAssign) or not isinstance(loop, ast.For) or len(loop.body) != 1 or node is None:
        return None
    pictures = pictures_of(statement, node)
    if pictures is None or statement.value is not pictures:
        return None
    body = draft.tree.body_of(loop)
    index = body.index(loop)
    before = body[index - 1] if index else None
    empty = isinstance(before, ast.Assign) and ast.unparse(before) == f"{ast.unparse(statement.target)} = []"
    after = body[index + 1] if index + 1 < len(body) else None
    reads = list(_reads(draft, statement.target))
    only = reads[0] if len(reads) == 1 and after is not None and draft.tree.in_body([after], reads[0]) == 0 else None
    simple = isinstance(after, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Expr | ast.Return)
    return Loop(
        loop=loop,
        body=statement,
        pictures=pictures,
        before=before if empty and isinstance(before, ast.Assign) else None,
        after=after if simple and only is not None else None,
        read=only,
    )


def _reads(draft: Draft, target: ast.expr) -> Iterator[ast.Name]:
    name = target.id if isinstance(target, ast.Name) else None
    for node in draft.tree.nodes(ast.Name):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            yield node


def remove_loop(draft: Draft, found: Loop, reason: str) -> None:
    """One call again, with what was done with its pictures around it."""
    text = draft.text
    if found.before is not None:
        draft.remove_statement(found.before, reason)
    first, inner = text.node(found.loop)[0], text.node(found.body)[0]
    draft.edit(text.line_start(first), text.line_start(inner), "", reason)
    width = len(text.indent(inner)) - len(text.indent(first))
    blocks.dedent(draft, found.loop, found.body, width)
    draft.opened[found.loop] = width
    begin, end = text.node(found.pictures)
    name = ast.unparse(found.body.target)
    if found.after is None or found.read is None or found.before is None or name != "all_images":
        draft.edit(text.node(found.body.target)[1], begin, " = ", "")
        return
    start, stop = text.node(found.after)
    read = text.node(found.read)
    draft.edit(inner, begin, text.source[start : read[0]], "")
    draft.edit(end, end, text.source[read[1] : text.line_end(stop)], "")
    draft.remove_statement(found.after, reason)


def resize(draft: Draft, call: Call, size: int, reason: str) -> bool:
    """The loop that is there makes ``size`` pictures at a time; False where there is none of ours."""
    found, node = loop_of(draft, call), draft.tree.call(call.span)
    if found is None or node is None:
        return False
    if COUNT in call.arguments:
        draft.edit(*draft.text.node(found.loop.iter), counts_of(total_of(found), size), reason)
        return True
    steps = found.loop.iter
    for value in [*node.args, *(k.value for k in node.keywords)]:
        portion = portion_of(value)
        if portion is not None:
            draft.edit(*draft.text.node(value), f"{portion.id}[i : i + {size}]", reason)
    whole = steps.args[1 if len(steps.args) == 3 else 0] if isinstance(steps, ast.Call) and steps.args else None
    if isinstance(whole, ast.Call) and len(whole.args) == 1:
        draft.edit(*draft.text.node(steps), steps_of(ast.unparse(whole.args[0]), size), reason)
    return True


def steps_of(name: str, size: int) -> str:
    """Where each portion of a list begins: ``range(0, len(prompts), 2)``, and ``range(len(prompts))`` one at a time."""
    return f"range(len({name}))" if size == 1 else f"range(0, len({name}), {size})"


def counts_of(total: int, size: int) -> str:
    """``(2, 2, 1)`` for five pictures, two at a time."""
    counts = [size] * (total // size) + ([total % size] if total % size else [])
    return f"({counts[0]},)" if len(counts) == 1 else f"({', '.join(str(c) for c in counts)})"


def total_of(found: Loop) -> int:
    """How many pictures the loop makes, by the counts that are written there."""
    return sum(
        e.value
        for e in getattr(found.loop.iter, "elts", [])
        if isinstance(e, ast.Constant) and isinstance(e.value, int)
    )


def portion_of(value: ast.expr) -> ast.Name | None:
    """``prompts`` of ``prompts[i : i + 2]``."""
    if not isinstance(value, ast.Subscript) or not isinstance(value.value, ast.Name):
        return None
    part = value.slice
    ours = isinstance(part, ast.Slice) and part.lower is not None and ast.unparse(part.lower) == "i"
    return value.value if ours else None


def inline(draft: Draft, before: ast.stmt, value: ast.Name, times: int, reason: str) -> bool:
    """``name = expression`` above the loop goes back to where ``value`` reads it, when it is read ``times`` times in all."""
    body = draft.tree.body_of(before)
    index = body.index(before)
    uses = [n for n in draft.tree.nodes(ast.Name) if isinstance(n, ast.Name) and n.id == value.id]
    for made in body[max(0, index - 2) : index]:
        named = isinstance(made, ast.Assign) and ast.unparse(made.targets[0]) == value.id
        if named and isinstance(made, ast.Assign) and len(uses) == times + 1:
            start, end = draft.text.node(made.value)
            whole = draft.tree.parents[value] if isinstance(draft.tree.parents[value], ast.Subscript) else value
            assert isinstance(whole, ast.expr)
            draft.edit(*draft.text.node(whole), draft.text.source[start:end], "")
            draft.remove_statement(made, reason)
            return True
    return False
