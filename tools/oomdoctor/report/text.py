"""One run as a page of text: the verdict and the figures first, details only where they help."""

from __future__ import annotations

from collections.abc import Iterable

from oomdoctor.explain import stage_words
from oomdoctor.rendering import table
from oomdoctor.units import duration, gib, human
from oomdoctor.values import Alive, Moment, Trial

VERDICTS = {"ok": "fits", "oom": "out of memory", "error": "failed", "timeout": "stopped"}
SMALL = 0.01
"""Share of a peak below which an entry is not listed."""
LISTED = 8
PATHS = 3
"""Modules named per kind and component."""


def run_report(trial: Trial, title: str = "", *, detail: bool = False) -> str:
    """The report of ``oom-doctor run``. ``detail``: every stage, module, assumption and file."""
    lines = [_verdict(trial, title)]
    if trial.died is not None:
        lines += _death(trial, trial.died)
    elif trial.outcome == "oom" and trial.diagnosis is not None:
        lines.append(f"  {trial.diagnosis.cause}")
    if trial.outcome in ("error", "timeout"):
        where = f"line {trial.script_line}: " if trial.script_line else ""
        lines.append("  " + where + (trial.error or "no reason given").strip().replace("\n", "\n  "))
    lines += _figures(trial)
    lines += _stages(trial, detail)
    moment = trial.died or trial.peak
    if moment is not None and moment.alive:
        lines.append(f"  on the card {'when it died' if trial.died else 'at the peak, ' + _where(moment)}:")
        lines += [f"    {line}" for line in alive_lines(moment.alive, moment.allocated_bytes, detail=detail)]
    lines += _files(trial, detail)
    shown = trial.assumptions if detail else trial.assumptions[:3]
    lines += [f"  assumed: {a}" for a in shown]
    if hidden := len(trial.assumptions) - len(shown):
        lines.append(f"  and {hidden} more assumptions (--detail)")
    lines += [f"  note: {n}" for n in trial.notes if not n.startswith(("not written in", "written to a scratch"))]
    return "\n".join(lines)


def _verdict(trial: Trial, title: str) -> str:
    what = "your script" if trial.ran == "script" else "a generated call"
    walls = f", {trial.isolation}" + (f" ({trial.isolated_by})" if trial.isolation == "sandbox" else "")
    return f"{title + ': ' if title else ''}{VERDICTS[trial.outcome]} on {trial.device} ({what}{walls})"


def _death(trial: Trial, died: Moment) -> list[str]:
    line = f"at line {died.line}, " if died.line else ""
    asked = f": {human(died.requested_bytes)} more were asked for" if died.requested_bytes else ""
    held = died.reserved_bytes if died.reserved_bytes is not None else died.allocated_bytes
    free = f", {human(max(0, trial.usable_bytes - held))} were free" if trial.usable_bytes is not None else ""
    return [f"  died {line}{_where(died)}{asked}{free}"]


def _where(moment: Moment) -> str:
    path = ".".join(p for p in (moment.component, moment.path) if p)
    return stage_words(moment.stage) + (f" ({path})" if path else "")


def _figures(trial: Trial) -> list[str]:
    if trial.peak_vram_bytes is None:
        return []
    total = (trial.usable_bytes or 0) + (trial.context_bytes or 0)
    left = f", {human(trial.headroom_bytes)} left" if trial.headroom_bytes is not None else ""
    pinned = f" ({human(trial.peak_pinned_bytes)} pinned)" if trial.peak_pinned_bytes else ""
    limit = f" of {human(trial.host_limit_bytes)}" if trial.host_limit_bytes is not None else ""
    return [
        f"  VRAM {human(trial.peak_vram_bytes)} of {human(total)}{left}: {human(trial.peak_allocated_bytes)} allocated, "
        f"{human(trial.peak_reserved_bytes)} reserved, {human(trial.context_bytes)} context",
        f"  RAM  {human(trial.peak_host_bytes)}{limit}{pinned}   time about {duration(trial.seconds)}"
        + (f" (simulated in {duration(trial.wall_seconds)})" if trial.wall_seconds is not None else ""),
    ]


def _stages(trial: Trial, detail: bool) -> list[str]:
    """Stage, component, peaks, seconds; of placing and loading only the last, where the sum is."""
    rows = [s for s in trial.stages if s.peak_reserved_bytes or detail]
    if not detail:
        early = [s for s in rows if s.stage.value in ("load", "place")]
        rows = [s for s in rows if s not in early[:-1]]
    if not rows:
        return []
    cells = [
        [s.stage.value, s.component or "", gib(s.peak_allocated_bytes), gib(s.peak_reserved_bytes), duration(s.seconds)]
        for s in rows
    ]
    text = table(["stage", "component", "allocated GiB", "reserved GiB", "time"], cells)
    return [f"    {line}" for line in text.splitlines()]


def alive_lines(entries: Iterable[Alive], total: int, *, detail: bool = False) -> list[str]:
    """One line per kind and component, the largest modules of each named."""
    groups: dict[tuple[str, str], list[Alive]] = {}
    for entry in entries:
        groups.setdefault((entry.kind, entry.component), []).append(entry)
    ordered = sorted(groups.items(), key=lambda item: -sum(e.bytes for e in item[1]))
    lines: list[str] = []
    for (kind, component), members in ordered:
        size = sum(e.bytes for e in members)
        if not detail and (size < SMALL * total or len(lines) >= LISTED):
            break
        paths = [e for e in sorted(members, key=lambda e: -e.bytes) if e.path and e.path != "..."]
        named = ", ".join(f"{e.path} {human(e.bytes)}" for e in (paths if detail else paths[:PATHS]))
        lines.append(
            f"{human(size):>9}  {component + ' ' if component else ''}{kind}" + (f": {named}" if named else "")
        )
    return lines


def _files(trial: Trial, detail: bool) -> list[str]:
    if not trial.files:
        return []
    shown = trial.files if detail else trial.files[:4]
    names = [f"{f.path} ({f.what}, {human(f.bytes)})" for f in shown]
    more = f" and {len(trial.files) - len(shown)} more" if len(trial.files) > len(shown) else ""
    return [f"  nothing was left on disk; the script would have saved {', '.join(names)}{more}"]
