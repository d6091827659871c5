"""``diagnose``: the steps in their order, and the value they end in."""

from __future__ import annotations

from dataclasses import replace

from oomdoctor.diagnosis import advice, regressions, tensors
from oomdoctor.diagnosis.accidents import accidents
from oomdoctor.diagnosis.by_script import by_line, component_of
from oomdoctor.diagnosis.case import Case
from oomdoctor.diagnosis.condense import condense
from oomdoctor.diagnosis.context import read_context
from oomdoctor.diagnosis.families import Cure, Sighting, find
from oomdoctor.diagnosis.frames import Frames, find_frames, frames_of
from oomdoctor.diagnosis.kept import kept_between
from oomdoctor.diagnosis.kinds import LOADING, decide
from oomdoctor.diagnosis.normalise import Page, normalise
from oomdoctor.diagnosis.numbers import owners
from oomdoctor.diagnosis.select_error import Chosen, Unrecognised, choose, error_type, unrecognised
from oomdoctor.diagnosis.stages import Place, place, quote, user_line
from oomdoctor.errors import NoError
from oomdoctor.values import Confidence, Diagnosis, Hardware, Kind, Script, Stage

_MESSAGE = 1_500
_QUOTE = 400
_MOST_FRAMES = 80
_FROM_SIZE = 20
"""Weight of a stage that only the size of the request tells."""


def diagnose(
    text: str,
    *,
    script: Script | None = None,
    hardware: Hardware | None = None,
    at: tuple[Stage, str | None] | None = None,
) -> Diagnosis:
    """Read a pasted traceback, message or log.

    ``script`` (the script that failed) and ``hardware`` (the machine it failed on) sharpen the reading when at hand.
    ``at``: stage and component, where whoever has the text knows them better than its frames tell (a virtual run).
    Linear in ``text``; any text is safe. Raises :class:`~oomdoctor.errors.NoError` when there is no error in it.
    """
    page = normalise(condense(text))
    frames = find_frames(page)
    chosen = choose(find(page), frames)
    if chosen is None:
        return _unknown(page, frames, script)
    if not chosen.sighting.family.memory:
        return _not_memory(chosen, page, frames, script)
    return _memory(chosen, page, frames, script, hardware, at)


def _memory(
    chosen: Chosen, page: Page, all_frames: Frames, script: Script | None, hardware: Hardware | None,
    at: tuple[Stage, str | None] | None,
) -> Diagnosis:  # fmt: skip
    s = _with_machine(chosen.sighting, hardware)
    frames = frames_of(all_frames, page, s.line)
    ctx = read_context(page, s, script, hardware)
    n = s.numbers
    where = place(frames, page, s.line)
    weights = tuple(tensors.weight_matches(n.requested)) if n.requested else ()
    line = user_line(frames, script.path if script else None)
    where = _elsewhere(where, s, weights, script, line)
    if at is not None:
        where = replace(where, stage=at[0], weight=100, component=at[1] or where.component)
    verdict = decide(s, where, frames, ctx)
    scores = tensors.scores_guess(n.requested, _tokens(script)) if n.requested else None
    case = Case(
        s,
        verdict,
        where,
        owners(n, s.family.device),
        ctx,
        frames,
        weights,
        scores,
        findings=accidents(script),
        regression=regressions.known(ctx, frames, s.family.device),
        script=script,
        hardware=hardware,
    )
    findings = tuple(f.text for f in case.findings)
    return Diagnosis(
        is_oom=True,
        kind=verdict.kind,
        stage=where.stage,
        component=where.component,
        device=s.family.device,
        gpu_index=n.gpu,
        requested_bytes=n.requested,
        capacity_bytes=chosen.sighting.numbers.capacity,
        free_bytes=n.free,
        allocated_bytes=n.allocated,
        reserved_unallocated_bytes=n.cached,
        private_pool_bytes=n.private,
        allowed_bytes=n.allowed,
        process_bytes=_own_bytes(case),
        other_process_bytes=case.owners.other if case.owners.listed or verdict.kind is Kind.OTHER_PROCESS else None,
        error_type=error_type(page, s),
        message=_message(page, s),
        cause=advice.cause(case),
        evidence=_evidence(case, page, findings),
        frames=frames[-_MOST_FRAMES:],
        script_line=line,
        confidence=verdict.confidence,
        next_step=advice.next_step(case),
        fix_families=advice.fix_families(case),
        not_helpful=advice.not_helpful(case),
        warnings=(*advice.warnings(case), *kept_between(chosen, page), *findings),
    )


def _with_machine(s: Sighting, hardware: Hardware | None) -> Sighting:
    """The sighting judged by the machine's card where the message does not name its size."""
    n = s.numbers
    if hardware is None or n.capacity is not None or s.family.device not in ("cuda", "hip", "xpu"):
        return s
    cards = [g for g in hardware.gpus if g.index == (n.gpu or 0) and g.family == s.family.device]
    return replace(s, numbers=replace(n, capacity=cards[0].total_bytes)) if cards else s


def _elsewhere(
    where: Place, s: Sighting, weights: tuple[tensors.Match, ...], script: Script | None, line: int | None
) -> Place:
    """What frames and words left open: by the script's own line, the request's size, the message's usual origin."""
    if script is not None and not where.fair:
        written = by_line(script, line)
        where = written if written.weight > where.weight else where
    if where.stage is Stage.UNKNOWN:
        stages = {m.known.stage for m in weights}
        if len(stages) == 1:
            known = weights[0].known
            where = Place(known.stage, _FROM_SIZE, known.component, f"the size of {weights[0].text}")
        elif s.family.stage is not None:
            where = Place(s.family.stage, _FROM_SIZE)
        elif script is not None and script.training:
            where = Place(Stage.TRAINING, _FROM_SIZE)
    if where.component is None and script is not None:
        return Place(where.stage, where.weight, component_of(script.main, where.stage), where.quote)
    return where


def _tokens(script: Script | None) -> int | None:
    """Latent tokens of the script's picture at a UNet's full resolution (1/8 of the pixels), when it gives a size."""
    use = script.main if script else None
    for call in use.calls if use else ():
        height, width = (call.arguments.get(name) for name in ("height", "width"))
        if height is not None and width is not None and isinstance(height.value, int) and isinstance(width.value, int):
            return (height.value // 8) * (width.value // 8) or None
    return None


def _own_bytes(case: Case) -> int | None:
    n = case.numbers
    if n.metal is not None and n.allocated is not None:
        return n.allocated + n.metal
    return case.owners.own


def _message(page: Page, s: Sighting) -> str:
    return page.text(s.begin, s.end)[:_MESSAGE]


def _evidence(case: Case, page: Page, findings: tuple[str, ...]) -> tuple[str, ...]:
    out = [_message(page, case.sighting)[:_QUOTE]]
    if case.place.quote:
        out.append(case.place.quote[:_QUOTE])
    elif case.frames:
        out.append(quote(case.frames[-1])[:_QUOTE])
    if case.scores:
        out.append(case.scores)
    elif fitting := [m for m in case.weights if m.known.stage is case.stage or case.stage in LOADING]:
        out.append(f"the request has the size of {fitting[0].text}")
    out.extend(findings[:1])
    return tuple(dict.fromkeys(out))


def _not_memory(chosen: Chosen, page: Page, all_frames: Frames, script: Script | None) -> Diagnosis:
    s = chosen.sighting
    cure = s.family.cure or Cure("", "")
    frames = frames_of(all_frames, page, s.line)
    where = place(frames, page, s.line)
    confidence: Confidence = "medium" if cure.confidence == "medium" else "high"
    warnings: tuple[str, ...] = ()
    if chosen.earlier is not None:
        earlier = chosen.earlier.family
        if chosen.earlier.line < s.line:
            warnings = (
                f"An out-of-memory message ({earlier.name}) stands earlier in the text; this error came after it.",
            )
    return Diagnosis(
        is_oom=False,
        kind=Kind.NOT_MEMORY,
        stage=where.stage if where.weight or cure.stage is None else cure.stage,
        component=cure.component or where.component,
        device=s.family.device,
        error_type=error_type(page, s),
        message=_message(page, s),
        cause=cure.cause,
        evidence=tuple(dict.fromkeys(filter(None, (_message(page, s)[:_QUOTE], where.quote)))),
        frames=frames[-_MOST_FRAMES:],
        script_line=user_line(frames, script.path if script else None),
        confidence=confidence,
        next_step=cure.next_step,
        fix_families=cure.fix_families,
        not_helpful=("Saving more memory: memory is not what failed here.",),
        warnings=warnings,
    )


def _unknown(page: Page, all_frames: Frames, script: Script | None) -> Diagnosis:
    """An error that is not known here, and in which nothing speaks of memory."""
    error: Unrecognised | None = unrecognised(page)
    if error is None:
        raise NoError(
            "There is no error in this text: neither a traceback nor any message of running out of memory. Paste the "
            "whole output, from 'Traceback (most recent call last)' to the last line; if the process just stopped, "
            "paste its last lines, 'Killed' or the exit code included."
        )
    frames = frames_of(all_frames, page, error.line)
    where = place(frames, page, error.line)
    message = " ".join(page.lines[error.line].split())[:_MESSAGE]
    cut = error.error_type == "error" and bool(frames)
    return Diagnosis(
        is_oom=False,
        kind=Kind.NOT_MEMORY,
        stage=where.stage,
        component=where.component,
        error_type=None if error.error_type == "error" else error.error_type,
        message=message,
        cause=(
            "The traceback is cut off before the line that names the error."
            if cut
            else "An error in which nothing speaks of memory; it is not one that is known here."
        ),
        evidence=(message[:_QUOTE],),
        frames=frames[-_MOST_FRAMES:],
        script_line=user_line(frames, script.path if script else None),
        confidence="low" if error.error_type == "error" else "medium",
        next_step=(
            "Paste the text again with its last lines."
            if cut
            else "Solve this error first; it is not about memory. If memory ran out before it, paste that part too."
        ),
    )


__all__ = ["diagnose"]
