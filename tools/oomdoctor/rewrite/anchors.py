"""Where a new line belongs: below loading, adapters and whatever prepares the pipeline, above its first call."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from oomdoctor.techniques import all_techniques
from oomdoctor.techniques.base import Phase

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_NO_WEIGHTS = ("scheduler", "set_progress_bar_config")
_LORA = ("fuse_lora", "unfuse_lora", "set_adapters", "unload_lora_weights", "set_ip_adapter_scale")


def first_loading(draft: Draft, lines: Sequence[str]) -> ast.stmt | None:
    """What ``lines`` stand above: the first of the separately loaded components in the block of the statement that
    loads, or that statement itself where the lines read something that is bound in between."""
    if draft.load is None:
        return None
    body = draft.tree.body_of(draft.load)
    found = [draft.load]
    for loaded in draft.use.components:
        statement = draft.tree.statement(loaded.span) if loaded.span else None
        if statement is not None and any(s is statement for s in body):
            found.append(statement)
    first = min(found, key=lambda s: draft.text.node(s)[0])
    start, end = draft.tree.in_body(body, first), draft.tree.in_body(body, draft.load)
    bound, read = _names(body[start:end], ast.Store), _names(map(ast.parse, lines), ast.Load)
    return draft.load if bound & read else first


def _names(statements: Iterable[ast.AST], context: type[ast.expr_context]) -> set[str]:
    nodes = (n for s in statements for n in ast.walk(s))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def adapters(draft: Draft) -> list[ast.stmt]:
    """Statements that load, fuse or weigh LoRA and its like."""
    found = [draft.tree.statement(a.span) for a in draft.use.adapters]
    fused = [s for s in draft.tree.statements() if (a := _subject(draft, s)) is not None and a.attr in _LORA]
    return [*(s for s in found if s is not None), *fused]


def anchor(draft: Draft, phase: int) -> ast.stmt | None:
    """The last statement that must come before a line of this phase, in the block of the loading statement."""
    if draft.load is None or isinstance(draft.load, ast.Return):
        return draft.load
    tree, use = draft.tree, draft.use
    body = tree.body_of(draft.load)
    first = tree.in_body(body, draft.load)
    assert first is not None

    def places(statements: list[ast.stmt]) -> list[int]:
        found = (tree.in_body(body, s) for s in statements)
        return [i for i in found if i is not None and i > first]

    def standing(spans: list[ast.stmt | None]) -> list[ast.stmt]:
        return [s for s in spans if s is not None]

    calls = standing([tree.statement(c.span) for c in (*use.calls, *use.part_calls)])
    limit = min(places(calls), default=len(body))
    moves = standing([tree.statement(p.span) for p in use.placements])
    earlier = adapters(draft) + [s for s, kept_phase in draft.kept.items() if kept_phase <= phase]
    filled = standing([draft.filled])
    if phase >= Phase.OFFLOAD:
        earlier += moves + filled
    earlier += [s for s, (name, _) in draft.removed.items() if stood_at(name) <= phase and draft.begins_line(s)]
    indices = [i for i in places(earlier) if i < limit]
    later = [s for s, kept_phase in draft.kept.items() if kept_phase > phase]
    later += [s for s in (*moves, *filled) if phase < Phase.OFFLOAD and s not in draft.removed]
    limit = min([limit, *places(later)])
    bound_anew = (i for i in range(first + 1, limit) if _binds(draft, body[i]))
    limit = min(bound_anew, default=limit)
    vacated = min(places([s for s in draft.removed if draft.begins_line(s)]), default=limit)
    indices += [i for i in range(first + 1, limit) if _prepares(draft, body[i], i > vacated)]
    return body[max(indices, default=first)]


def stood_at(name: str) -> float:
    """Phase of the technique whose line goes: what comes instead of it takes its place."""
    known = all_techniques().get(name)
    return known.phase if known is not None and known.phase >= Phase.ADAPTERS else float("inf")


def _prepares(draft: Draft, statement: ast.stmt, late: bool) -> bool:
    """``pipe.scheduler = ...``, ``pipe.fuse_lora()``: makes the pipeline ready, and comes before what depends on it.

    ``late``: it stands below a line that goes, whose place a new line may take; what concerns no weights stays there.
    """
    subject = _subject(draft, statement)
    if subject is None or statement in draft.removed or not draft.begins_line(statement):
        return False
    return not (late and subject.attr in _NO_WEIGHTS and ast.unparse(subject.value) == draft.pipe)


def _binds(draft: Draft, statement: ast.stmt) -> bool:
    """``pipe = ...`` again, and not merely ``pipe = pipe.to(...)``: from here on it is another pipeline."""
    if not isinstance(statement, ast.Assign):
        return False
    ours = any(ast.unparse(t) == draft.pipe for t in statement.targets)
    return ours and not ast.unparse(statement.value).startswith(draft.pipe + ".")


def _subject(draft: Draft, statement: ast.stmt) -> ast.Attribute | None:
    """``pipe.x`` of ``pipe.x = ...`` and of ``pipe.x(...)``."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        written: ast.expr = statement.targets[0]
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        written = statement.value.func
    else:
        return None
    ours = isinstance(written, ast.Attribute) and ast.unparse(written).startswith(draft.pipe + ".")
    return written if ours and isinstance(written, ast.Attribute) else None
