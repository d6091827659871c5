"""Taking statements out: with their line when they have it to themselves, and never leaving an empty block."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterable

from oomdoctor.rewrite.tree import Tree

Removal = tuple[ast.stmt, int, int, str]
"""The statement it is for, and the edit: start, end, new text."""


def removals(tree: Tree, statements: Iterable[ast.stmt], inserted: Container[int] = ()) -> list[Removal]:
    """The edits that take out ``statements``, all of them at once. ``inserted``: offsets where new text comes in."""
    gone = set(statements)
    found: list[Removal] = []
    for body in _bodies(tree, gone):
        empty = all(s in gone for s in body) and body is not tree.module.body
        for run in _runs(tree, body):
            out = [s for s in run if s in gone]
            if empty and run[0] is body[0]:
                start, end = tree.text.node(run[0])[0], tree.text.node(run[-1])[1]
                found.append((run[0], start, end, "pass"))
            elif len(out) == len(run):
                found.append((run[0], *_lines(tree, run, inserted)))
            elif out:
                found += _from_run(tree, run, gone)
    return found


def _bodies(tree: Tree, gone: set[ast.stmt]) -> list[list[ast.stmt]]:
    bodies: list[list[ast.stmt]] = []
    for statement in gone:
        body = tree.body_of(statement)
        if not any(b is body for b in bodies):
            bodies.append(body)
    return bodies


def _runs(tree: Tree, body: list[ast.stmt]) -> list[list[ast.stmt]]:
    """Statements that share a line (``a; b``) belong together."""
    runs: list[list[ast.stmt]] = []
    for statement in body:
        line = tree.text.line_of(tree.text.node(statement)[0])
        if runs and tree.text.line_of(tree.text.node(runs[-1][-1])[1]) == line:
            runs[-1].append(statement)
        else:
            runs.append([statement])
    return runs


def _lines(tree: Tree, run: list[ast.stmt], inserted: Container[int]) -> tuple[int, int, str]:
    """A run that goes as a whole: its lines, or what stands after ``if x:`` on one line."""
    text, source = tree.text, tree.text.source
    start, end = text.node(run[0])[0], text.node(run[-1])[1]
    if source[text.line_start(start) : start].strip():
        return start, end, "pass"
    if text.is_last_line(end) and text.line_of(start) > 1 and text.line_start(start) not in inserted:
        return text.line_end(text.line_start(start) - 1), len(source), ""
    return text.line_start(start), text.next_line(end), ""


def _from_run(tree: Tree, run: list[ast.stmt], gone: set[ast.stmt]) -> list[Removal]:
    """Some of ``a; b; c``."""
    text = tree.text
    stays = [i for i, s in enumerate(run) if s not in gone]
    found: list[Removal] = []
    for index, statement in enumerate(run[: stays[-1]]):
        if statement in gone:
            found.append((statement, text.node(statement)[0], text.node(run[index + 1])[0], ""))
    if stays[-1] < len(run) - 1:
        found.append((run[stays[-1] + 1], text.node(run[stays[-1]])[1], text.node(run[-1])[1], ""))
    return found
