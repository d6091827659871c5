"""From a script and a strategy to a patch.

After a rewrite the script uses exactly the strategy: techniques that belong to how memory is handled and are not in it
are taken out, others (the user's compile settings, say) stay unless they contradict it. ``plain`` changes nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace

from oomdoctor.errors import NoPipeline, NotApplicable
from oomdoctor.rewrite import branches, edits
from oomdoctor.rewrite.draft import Draft
from oomdoctor.rewrite.imports import unused_after
from oomdoctor.rewrite.tree import Tree
from oomdoctor.techniques import all_techniques, check, clashes, resolved, technique
from oomdoctor.techniques.base import PLACING, Context, Technique
from oomdoctor.values import Application, Measurement, Patch, PipelineUse, Reason, Script, Strategy, Target


def rewrite(
    source: str,
    strategy: Strategy,
    *,
    script: Script | None = None,
    measurement: Measurement | None = None,
    target: Target | None = None,
    versions: Mapping[str, str | None] | None = None,
) -> Patch:
    """The script with ``strategy`` written into it. Doing it twice changes nothing the second time.

    ``measurement``, ``target`` and ``versions`` (of the user's interpreter; ``target.versions`` by default) make the
    legality checks sharper; without them what the text tells has to do.

    Raises :class:`NotPython`, :class:`NoPipeline`, :class:`UnknownStrategy`, and :class:`NotApplicable` with every
    reason when a technique is not legal here.
    """
    context = _context(source, script, measurement, target, versions)
    if not strategy.applications:
        return Patch(source=source, diff="", strategy=strategy.id)
    reasons = check(strategy, context)
    if reasons:
        raise NotApplicable(
            f"{strategy.id} cannot be written into this script. {' '.join(reasons)} "
            "`oom-doctor strategies SCRIPT` lists what can."
        )
    wanted = resolved(strategy, context)
    draft = Draft(source, replace(context, strategy=wanted))
    todo = _take_out(draft, wanted)
    for application in wanted.applications:
        known = technique(application.technique)
        with draft.writing(known.name):
            if known.name in todo:
                known.write(draft, application)
            else:
                known.tidy(draft, application)
    for name, known in all_techniques().items():
        with draft.writing(name):
            known.always(draft)
    _put_back_on_card(draft, wanted)
    return _patch(draft, strategy)


def revert(
    source: str,
    strategy: Strategy,
    *,
    script: Script | None = None,
    versions: Mapping[str, str | None] | None = None,
) -> Patch:
    """The script with the techniques of ``strategy`` taken out again; ``plain`` takes out every one it knows.

    A pipeline that was offloaded goes back to the card as a whole. Techniques that are not there are no error.
    """
    context = _context(source, script, None, None, versions)
    names = [a.technique for a in strategy.applications] or [n for n, t in all_techniques().items() if t.settles]
    draft = Draft(source, context)
    for name in names:
        known = technique(name)
        if known.read(context) is not None:
            with draft.writing(name):
                known.remove(draft)
            if PLACING & set(known.tags):
                with draft.writing(name):
                    draft.restore_placement("The pipeline goes to the card as a whole again.")
    return _patch(draft, strategy)


def _context(
    source: str,
    script: Script | None,
    measurement: Measurement | None,
    target: Target | None,
    versions: Mapping[str, str | None] | None,
) -> Context:
    if script is None:
        from oomdoctor.script import read_script

        script = read_script(source)
    use = script.main
    if use is None:
        raise NoPipeline(
            "No diffusers pipeline was found in this script, so there is nothing to rewrite. Hand over the file that "
            "loads the pipeline (it has `from_pretrained` or `from_single_file` in it)."
        )
    known = versions if versions is not None else target.versions if target else {}
    return Context(script, use, measurement, target, known, source)


def _take_out(draft: Draft, wanted: Strategy) -> set[str]:
    """Removes what the strategy does not want; the names of techniques that have to be written."""
    context = draft.context
    applications = {a.technique: a for a in wanted.applications}
    todo = set(applications)
    for name, known in all_techniques().items():
        present = known.read(context)
        if present is None:
            if name not in applications and known.found(context.use):
                _keep(draft, known)
            continue
        asked = applications.get(name)
        if asked is not None and _same(present, asked) and not _in_one_branch(draft, known):
            todo.discard(name)
            _keep(draft, known)
        elif asked is None and known.idle(context, present):
            _keep(draft, known)
        elif asked is not None or known.settles or any(clashes(name, other) for other in applications):
            with draft.writing(name, renews=asked is not None):
                known.remove(draft)
        else:
            _keep(draft, known)
    return todo


def _in_one_branch(draft: Draft, known: Technique) -> bool:
    """It places the pipeline in one branch of the script only."""
    if not PLACING & set(known.tags):
        return False
    statements = (draft.tree.statement(u.found.statement or u.found.span) for u in known.found(draft.use))
    return any(s is not None and branches.divided(draft, s) for s in statements)


def _keep(draft: Draft, known: Technique) -> None:
    for use in known.found(draft.use):
        statement = draft.tree.statement(use.found.statement or use.found.span)
        if statement is not None:  # of several techniques that see to it, the one that stands latest decides
            draft.kept[statement] = max(known.kept_phase(use), draft.kept.get(statement, 0))


def _same(one: Application, other: Application) -> bool:
    return set(one.components) == set(other.components) and set(one.options) == set(other.options)


def _put_back_on_card(draft: Draft, wanted: Strategy) -> None:
    """An offloading technique was taken out and none replaces it: the pipeline must go to the card itself."""
    if any(PLACING & set(technique(a.technique).tags) for a in wanted.applications):
        return
    before = [t for t in all_techniques().values() if PLACING & set(t.tags) and t.read(draft.context) is not None]
    if before:
        with draft.writing(before[0].name):
            draft.restore_placement("Without offloading the pipeline goes to the card as a whole.")


def _patch(draft: Draft, strategy: Strategy) -> Patch:
    source = draft.text.source
    changed, reasons = edits.apply(source, draft.edits())
    if changed != source:
        changed, reasons = _without_dead_imports(draft.tree, changed, reasons)
        ast.parse(changed.removeprefix("\ufeff"))
    name = (draft.script.path or "script.py").replace("\\", "/").rsplit("/", 1)[-1]
    return Patch(
        source=changed,
        diff=edits.unified_diff(source, changed, name),
        strategy=strategy.id,
        reasons=reasons,
        warnings=(*draft.warnings, *_uncertain(draft.use), *(_others(draft) if changed != source else ())),
        by_hand=tuple(draft.hand),
    )


def _without_dead_imports(before: Tree, changed: str, reasons: tuple[Reason, ...]) -> tuple[str, tuple[Reason, ...]]:
    while changes := unused_after(before, changed):
        start, end, new = changes[0]
        line = changed.count("\n", 0, start) + 1
        removed = changed.count("\n", start, end)
        changed = changed[:start] + new + changed[end:]
        reasons = tuple(r.model_copy(update={"line": r.line - removed}) if r.line > line else r for r in reasons)
    return changed, reasons


def _others(draft: Draft) -> Iterator[str]:
    """What the script loads besides and is left as it is."""
    for use in draft.script.pipelines:
        if use.kind != "pipeline" or use.loader == "from_pipe" or use.runs is False:
            continue
        if use.load_span != draft.use.load_span:
            words = f"Line {use.load_statement.line} loads another pipeline"
            yield f"{words}{f' ({use.variable})' if use.variable else ''}: it is left as it is and keeps what it takes."


def _uncertain(use: PipelineUse) -> tuple[str, ...]:
    return tuple(f"Not followed: {words}" for words in use.uncertain)
