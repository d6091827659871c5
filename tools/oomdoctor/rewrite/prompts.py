"""Exchanging the prompt of a call for ready embeddings, and back."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oomdoctor.values import Call

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

_PROMPT = re.compile(r"(negative_)?prompt(_\d)?\Z")


def replace_prompt(draft: Draft, call: Call, names: Sequence[str], reason: str) -> None:
    """``pipe(prompt, ...)`` becomes ``pipe(prompt_embeds=prompt_embeds, ...)``."""
    node = draft.tree.call(call.span)
    if node is None or not (node.args or any(k.arg is not None and _PROMPT.match(k.arg) for k in node.keywords)):
        draft.by_hand(
            f"Line {call.span.line}: pass {', '.join(f'{n}={n}' for n in names)} to the call instead of the prompt."
        )
        return
    old = [draft.text.node(a) for a in node.args]
    old += [draft.text.node(k) for k in node.keywords if k.arg is not None and _PROMPT.match(k.arg)]
    old.sort()
    words = [f"{n}={n}" for n in names]
    if draft.context.facts is not None and draft.context.facts.negative_prompt_filled:
        words.append("negative_prompt=None")
    draft.edit(*old[0], _joined(draft, old[0][0], words), reason)
    for name in [k.arg for k in node.keywords if k.arg is not None and _PROMPT.match(k.arg)]:
        if draft.text.node(next(k for k in node.keywords if k.arg == name)) != old[0]:
            draft.unset_keyword(node, name, reason)


def _joined(draft: Draft, start: int, words: Sequence[str]) -> str:
    """Arguments as the call has them: one per line where the first one has a line to itself."""
    text = draft.text
    line = text.source[text.line_start(start) : text.line_end(start)].strip()
    alone = not text.source[text.line_start(start) : start].strip() and line.endswith(",") and line.count("=") <= 1
    return f",{text.newline}{text.indent(start)}".join(words) if alone else ", ".join(words)


def restore_prompt(draft: Draft, reason: str) -> None:
    """Takes out the lines that encode in advance; the call passes what they passed."""
    encode = next((c for c in draft.use.part_calls if c.pipeline.endswith("encode_prompt")), None)
    call = draft.use.calls[0] if draft.use.calls else None
    node = draft.tree.call(call.span) if call is not None else None
    encoding = draft.tree.call(encode.span) if encode is not None else None
    holder = draft.tree.statement(encode.span) if encode is not None else None
    if node is None or encoding is None or holder is None:
        draft.by_hand("Pass the prompt to the call again instead of the embeddings.")
        return
    words = [draft.text.source[slice(*draft.text.node(a))] for a in encoding.args]
    words += [
        draft.text.source[slice(*draft.text.node(k))]
        for k in encoding.keywords
        if k.arg is not None and _PROMPT.match(k.arg) and ast.unparse(k.value) != "None"
    ]
    names = {n.id for t in getattr(holder, "targets", ()) for n in ast.walk(t) if isinstance(n, ast.Name)}
    ready = [k for k in node.keywords if k.arg is not None and isinstance(k.value, ast.Name) and k.value.id in names]
    if ready:
        ready += [k for k in node.keywords if k.arg == "negative_prompt" and ast.unparse(k.value) == "None"]
    else:
        draft.by_hand(f"Line {node.lineno}: pass {', '.join(words)} to the call again.")
        return
    spans = sorted(draft.text.node(k) for k in ready)
    others = [k for k in node.keywords if k.arg is not None and k not in ready]
    between = any(spans[0] < draft.text.node(k) < spans[-1] for k in others)
    last = spans[0] if between else spans[-1]
    draft.edit(spans[0][0], last[1], _joined(draft, spans[0][0], words), reason)
    for keyword in ready if between else ():
        if draft.text.node(keyword) != spans[0]:
            draft.unset_keyword(node, str(keyword.arg), reason)
    block = draft.tree.parents.get(holder)
    around = block if isinstance(block, ast.With) and len(block.body) == 1 else holder
    assert isinstance(around, ast.stmt)
    body = draft.tree.body_of(around)
    index = body.index(around)
    draft.remove_statement(around, reason)
    for statement in _neighbours(draft, body, index):
        draft.remove_statement(statement, reason)


def _neighbours(draft: Draft, body: list[ast.stmt], index: int) -> list[ast.stmt]:
    """What belongs to encoding in advance: moving the encoders, dropping them, freeing, moving the rest."""
    found: list[ast.stmt] = []
    for step in (-1, 1):
        position = index + step
        while 0 <= position < len(body) and _belongs(draft.pipe, body[position]):
            found.append(body[position])
            position += step
    return found


def _belongs(pipe: str, statement: ast.stmt) -> bool:
    text = ast.unparse(statement)
    if isinstance(statement, ast.Expr):
        return text.startswith((f"{pipe}.text_encoder", f"{pipe}.to(")) or text.endswith(
            ("cuda.empty_cache()", "gc.collect()")
        )
    if isinstance(statement, ast.Assign):
        return all(ast.unparse(t).startswith(f"{pipe}.text_encoder") for t in statement.targets)
    return False
