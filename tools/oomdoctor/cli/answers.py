"""A plan and the answers around it, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oomdoctor import rendering
from oomdoctor.units import duration, gib, human
from oomdoctor.values import CardNeed, Formula, LargestJob, Plan, Spreading, StrategyOption

_HEAD = ("", "strategy", "needs GiB", "takes GiB", "RAM GiB", "time", "picture", "proof")


def plan(p: Plan, *, detail: bool = False) -> str:
    """Everything that the plan holds, in the order in which a person reads it."""
    parts = [_list(p)]
    if p.subject is not None:
        parts.append("\n".join([*_subject(p.subject), *_largest(p.largest)]))
    if p.smallest_card is not None:
        parts.append(_card(p.smallest_card))
    if p.pareto:
        rows = _table(enumerate(p.pareto, 1))
        parts.append(
            f"Pareto front: nothing beats these in VRAM, time, quality and RAM at once ({len(p.pareto)})\n{rows}"
        )
    if p.spreadings:
        parts.append("\n".join(["Several cards", *(line for s in p.spreadings for line in _spreading(s))]))
    if p.formulas:
        parts.append(_formulas(p.formulas))
    if detail:
        parts.append("\n".join(f"{o.id}: {'; '.join(o.reasons)}" for o in p.strategies))
        parts.append("\n".join(f"not here: {name}: {why}" for name, why in p.illegal.items()))
    return "\n\n".join(part for part in parts if part)


def _list(p: Plan) -> str:
    """The strategies by sort, numbered best first."""
    lines = [] if p.strategies else ["No strategy fits."]
    numbered = list(enumerate(p.strategies, 1))
    for group in dict.fromkeys(o.group for o in p.strategies):
        lines += [group, _table((n, o) for n, o in numbered if o.group == group), ""]
    lines += [f"  would unlock it: {u}" for u in p.unlock]
    lines += [f"  note: {n}" for n in p.notes]
    lines.append(f"  {p.considered} combinations considered; {p.fitting} of those that were folded fit")
    return "\n".join(lines)


def _table(options: Iterable[tuple[int, StrategyOption]]) -> str:
    return rendering.table(_HEAD, [[str(n), *_row(o)] for n, o in options])


def _row(o: StrategyOption) -> Sequence[str]:
    """``needs``: what the card must have; ``takes``: with the allocator's caches, as far as there is room for them."""
    e = o.estimate
    needs = gib(e.needed_vram_bytes if o.proof == "estimated" else e.vram_bytes)
    return o.id, needs, gib(e.vram_bytes), gib(e.ram_bytes), duration(e.seconds), e.quality.value, o.proof


def _subject(o: StrategyOption) -> list[str]:
    e = o.estimate
    verdict = "fits" if e.fits else "does not fit"
    lines = [
        f"{o.id}: {verdict}",
        f"  {human(e.vram_bytes)} on the card ({human(e.allocated_bytes)} allocated; loading {human(e.load_vram_bytes)}), "
        f"at least {human(e.needed_vram_bytes)} and {human(e.margin_bytes)} of margin",
        f"  {human(e.ram_bytes)} of RAM ({human(e.pinned_bytes)} pinned; loading {human(e.load_ram_bytes)})"
        + (f", {human(e.disk_bytes)} of disk" if e.disk_bytes else ""),
    ]
    if e.seconds is not None:
        lines.append(
            f"  {duration(e.seconds)} a call, the first {duration(e.first_seconds)}: computing "
            f"{duration(e.compute_seconds)} (unpacking {duration(e.unpack_seconds)}), transfers "
            f"{duration(e.transfer_seconds)}, of which hidden {duration(e.overlap_seconds)}"
        )
    lines.append(f"  picture {e.quality.value}; new packages {', '.join(e.new_packages) or 'none'}; {o.proof}")
    for s in e.stages:
        seconds = f"  {duration(s.seconds)}" if s.seconds is not None else ""
        lines.append(f"    {s.stage.value:<12} {s.component or '':<18} {human(s.reserved_bytes):>9} reserved{seconds}")
    lines += [f"  rests on {text}" for text in e.rests_on]
    lines += [f"  leaves out {text}" for text in e.leaves_out]
    return lines


def _largest(jobs: Sequence[LargestJob]) -> list[str]:
    lines = []
    for job in jobs:
        size = f"{job.width}x{job.height}" if job.dimension == "resolution" else str(job.frames or job.batch)
        at_least = "at least " if job.capped else ""
        lines.append(f"  largest {job.dimension} that fits: {at_least}{size} ({job.factor:.2f}x of this job)")
    if jobs:
        lines.append(f"    rests on: {jobs[0].rests_on}")
    return lines


def _card(need: CardNeed) -> str:
    what = f"Smallest card: {human(need.bytes)} free are needed"
    if need.label is None:
        return f"{what}; no single card of the catalogue has that."
    return f"{what}; {need.label} ({human(need.total_bytes)}) is the smallest of the catalogue that has them."


def _spreading(s: Spreading) -> list[str]:
    fits = "fits" if s.fits else "does not fit"
    lines = [f"  {s.kind}: {human(s.vram_bytes)} on the fullest card, {fits} ({s.proof})"]
    lines += [f"    {line}" for line in s.code.split("; ")]
    if s.placement:
        lines.append("    " + ", ".join(f"{name} on card {card}" for name, card in s.placement.items()))
    if s.launch:
        lines.append(f"    start it with: {s.launch}")
    if s.strategy:
        lines.append(f"    written by: rewrite --strategy {s.strategy!r}")
    return [*lines, *(f"    {note}" for note in s.notes)]


def _formulas(symbols: Sequence[Formula]) -> str:
    """One row per symbol and component, one column per format; the popular sums; what each of them gets wrong."""
    single = [f for f in symbols if f.published_bytes is None]
    formats = list(dict.fromkeys(f.format for f in single))
    rows: dict[tuple[str, str, str], dict[str, int]] = {}
    for f in single:
        # The largest component may be another one in another format.
        of = "" if f.symbol == "S_max" else f.of or ""
        rows.setdefault((f.symbol, of, f.meaning), {})[f.format] = f.bytes
    cells = [
        [symbol, of, *(human(sizes[f]) if f in sizes else "-" for f in formats), meaning]
        for (symbol, of, meaning), sizes in rows.items()
    ]
    sums = [
        [f.symbol, f.of or "", human(f.published_bytes), human(f.bytes), f.meaning]
        for f in symbols
        if f.published_bytes is not None
    ]
    wrong: dict[str, str] = {}
    for f in symbols:
        if f.correction:
            wrong.setdefault(f.correction, f"{f.symbol} ({f.format})" if f.format != "native" else f.symbol)
    return "\n".join(
        [
            "Symbols of the published calculators",
            rendering.table(["symbol", "of", *formats, "what it is"], cells),
            "",
            rendering.table(["popular sum", "of", "it says", "traced", "for"], sums),
            *(f"  {symbol}: {text}" for text, symbol in wrong.items()),
        ]
    )
