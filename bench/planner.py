"""How well the planner's estimates agree with virtual runs, and how fast it plans.

``python bench/planner.py [--runs N] [--cells N] [--minutes N] [--jobs NAME ...] [--fresh] [--offline] [--record] [--print]``

For each of ten jobs: one recorded measurement, then virtual runs on an unlimited card of the strategies that the planner
puts first in a fixed random sample of cells (12 sizes of card x 3 of RAM x 4 preferences) and of a random sample of the
rest of the space. A run knows its peaks, so most cards' verdicts follow by threshold: it fits where what the allocator
reserved fits, and it dies where not even what tensors held at one time does. In between the allocator gives caches back
and may or may not make do; there the smallest card on which the planner says that it fits (or the largest on which it
says that it does not) is run, and cards that this does not decide are left out and counted. Runs are kept on disk (see
``planner_truth``); ``--offline`` uses only those. Printed, with the bar of each:

* VRAM (what the allocator reserves, and what tensors hold at most) and host RAM: error of the estimate against the run,
  median and 95th percentile;
* verdicts: share of (strategy, card, RAM) on which "fits" is right, in all and where the card has between 15 % less than
  what tensors held and 15 % more than what the allocator reserved;
* best choice: seconds of the first strategy against the best simulated one of its quality class that fits;
* milliseconds of processor time of ``compute_strategies`` right after a measurement, and again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import product, zip_longest
from pathlib import Path
from typing import get_args

from oomdoctor.hardware import cards
from oomdoctor.planner import Prefer, compute_strategies, estimate
from oomdoctor.planner.choices import context_of, offer
from oomdoctor.planner.plan import evaluator_for
from oomdoctor.planner.rules import Rules
from oomdoctor.planner.space import explore
from oomdoctor.techniques import check
from oomdoctor.units import GIB
from oomdoctor.values import Estimate, Measurement, Strategy, Target

sys.path.insert(0, str(Path(__file__).resolve().parent))
from planner_jobs import JOBS
from planner_record import Job, p50, p95, record, share, show, summary
from planner_truth import Bench, Truth

REFERENCE = "rtx-4090-24gb"
"""Its rates time every run, so that estimate and truth speak of the same machine; capacities are those of the cells."""
CARDS_GIB = (5.8, 7.6, 9.8, 11.8, 15.6, 19.5, 23.6, 31.4, 39.5, 47.4, 79.1, 139.8)
RAM_GIB = (16, 32, 64)
NEAR = 0.15
SMALL_RAM = 4 * GIB
"""Errors of host memory are shares of the need, or of this where the need is less: nobody lacks the last few hundred MiB."""


def cells(count: int, seed: int = 7) -> list[tuple[float, int, Prefer]]:
    """The fixed sample."""
    everything = list(product(CARDS_GIB, RAM_GIB, get_args(Prefer)))
    return random.Random(seed).sample(everything, min(count, len(everything)))


def target(vram_gib: float, ram_gib: float) -> Target:
    card = next(c for c in cards() if c.name == REFERENCE)
    return Target(card=card, vram_bytes=int(vram_gib * GIB), ram_bytes=int(ram_gib * GIB))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.print:
        print(show())
        return 0
    options.until = time.monotonic() + 60 * options.minutes
    found = []
    for name in options.jobs or JOBS:
        run = not options.offline and time.monotonic() < options.until
        with Bench(name, JOBS[name], target(4096, 4096), options.fresh, run) as bench:
            try:
                found.append(compare(bench, options))
            except FileNotFoundError as reason:
                print(f"{name}: left out ({type(reason).__name__}: {str(reason)[:80]})")
                continue
        _print(found[-1], options.worst)
    result = summary(found)
    print(json.dumps(result, indent=1))
    if options.record:
        record(found)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(result["reached"].values()) else 1


def compare(bench: Bench, options: argparse.Namespace) -> Job:
    """One job: plan the cells, run what they put first, compare."""
    measurement = bench.measurement()
    out = Job(bench.name)
    script = bench.job.script
    chosen: dict[tuple[float, int, Prefer], list[str]] = {}
    for vram, ram, prefer in cells(options.cells):
        plan = compute_strategies(measurement, target(vram, ram), script=script, prefer=prefer)
        chosen[vram, ram, prefer] = [o.id for o in plan.strategies]
    out.ms = _planning_time(measurement, bench)
    truths = _truths(bench, measurement, chosen.values(), options, out)
    estimates = {s: estimate(Strategy.parse(s), measurement, bench.target, script) for s in truths}
    fits = {s: _verdicts(bench, measurement, s, t, estimates[s]) for s, t in truths.items()}
    for strategy, truth in truths.items():
        _judge(out, strategy, truth, estimates[strategy], fits[strategy])
    for (vram, ram, prefer), ids in chosen.items():
        _best(out, ids, truths, estimates, fits, vram, ram, prefer)
    return out


def _planning_time(measurement: Measurement, bench: Bench) -> tuple[float, float]:
    """Milliseconds of planning for a fresh measurement, and for one that was planned for before; the best of five each
    by processor time, so that other work on the machine does not count."""
    first: list[float] = []
    again: list[float] = []
    for _ in range(5):
        fresh = measurement.model_copy()
        for spent in (first, again):
            begun = time.process_time()
            compute_strategies(fresh, target(11.8, 64), script=bench.job.script)
            spent.append((time.process_time() - begun) * 1e3)
    return min(first), min(again)


def _truths(
    bench: Bench, measurement: Measurement, plans: Iterable[list[str]], options: argparse.Namespace, out: Job
) -> dict[str, Truth]:
    plans = list(plans)
    planned = dict.fromkeys([*(p[0] for p in plans if p), *(s for p in plans for s in p[1:3])])
    turns = zip_longest(planned, _others(bench, measurement))
    wanted = dict.fromkeys(["plain", *(s for turn in turns for s in turn if s)])
    if options.offline:
        wanted |= dict.fromkeys(bench.known())
    found: dict[str, Truth] = {}
    context = context_of(measurement, bench.target, bench.job.script)
    for strategy in wanted:
        if len(found) + len(out.failed) >= options.runs and not options.offline:
            break
        if time.monotonic() > options.until:
            bench.run = False  # what is on disk is compared, the rest waits for the next time
        if "compile" in strategy or check(Strategy.parse(strategy), context):
            continue  # a virtual run does not compile, so its seconds say nothing about that
        truth = bench.truth(strategy, measurement)
        if truth is None:
            continue
        out.runs += 1
        out.old += not truth.current
        if truth.outcome == "ok":
            found[strategy] = truth
        else:
            out.failed.append(f"{strategy}: {truth.outcome} {truth.error.strip().splitlines()[-1:]}")
    return found


def _others(bench: Bench, measurement: Measurement) -> list[str]:
    """A fixed random order of the space on a card that is tight."""
    tight = target(11.8, 64)
    offered = offer(context_of(measurement, tight, bench.job.script), Rules())
    space = explore(evaluator_for(measurement, tight), offered.choices, tight)
    ids = sorted({c.strategy.id for c in space.candidates})
    random.Random(11).shuffle(ids)
    return ids


def _context() -> int:
    return next(c for c in cards() if c.name == REFERENCE).context_bytes


def _says(value: Estimate, vram: float) -> bool:
    return (value.least_vram_bytes or value.vram_bytes) + value.margin_bytes <= vram * GIB


def _verdicts(
    bench: Bench, measurement: Measurement, strategy: str, truth: Truth, value: Estimate
) -> dict[float, bool]:  # fmt: skip
    """By size of card: whether the run finishes there; sizes of which that is not known are missing."""
    most, least = truth.reserved + _context(), truth.allocated + _context()
    out = {v: v * GIB >= most for v in CARDS_GIB if not least <= v * GIB < most}
    between = [v for v in CARDS_GIB if v not in out]
    if between:
        tried = next((v for v in between if _says(value, v)), between[-1])
        run = bench.limited(strategy, int(tried * GIB), measurement)
        if run is not None and run.outcome in ("ok", "oom"):
            fits = run.outcome == "ok"
            out |= {v: fits for v in between if (v >= tried if fits else v <= tried)}
    return out


def _judge(out: Job, strategy: str, truth: Truth, value: Estimate, fits: dict[float, bool]) -> None:
    needs, says = truth.reserved + _context(), value.vram_bytes
    out.vram.append(says / needs - 1)
    held = max(s.allocated_bytes for s in value.stages) + _context()
    out.tensors.append(held / (truth.tensors + _context()) - 1)
    out.ram.append((value.ram_bytes - truth.host) / max(truth.host, SMALL_RAM))
    if value.seconds and truth.steady:
        out.seconds.append(value.seconds / truth.steady - 1)
    out.worst.append((says / needs - 1, f"{strategy}: said {says / GIB:.2f}, needs {needs / GIB:.2f} GiB; RAM said "
                      f"{value.ram_bytes / GIB:.2f}, needs {truth.host / GIB:.2f}; said {value.seconds or 0:.0f} s, takes "
                      f"{truth.steady:.0f} s"))  # fmt: skip
    out.rows.append({
        "strategy": strategy,
        "vram": [round(says / GIB, 2), round(needs / GIB, 2)],
        "ram": [round(value.ram_bytes / GIB, 2), round(truth.host / GIB, 2)],
        "seconds": [round(value.seconds or 0.0, 1), round(truth.steady, 1)],
    })  # fmt: skip
    for vram, ram in product(CARDS_GIB, RAM_GIB):
        memory = ram * GIB
        if vram not in fits:
            out.undecided += 1
            continue
        really = fits[vram] and truth.host <= memory
        said = _says(value, vram) and value.ram_bytes * 1.05 <= memory
        out.agree.append(said == really)
        out.false_fits += said and not really
        least = truth.allocated + _context()
        if (1 - NEAR) * least <= vram * GIB <= needs / (1 - NEAR) and truth.host <= memory * (1 - NEAR):
            out.near.append(said == really)


def _best(
    out: Job, ids: list[str], truths: dict[str, Truth], estimates: dict[str, Estimate],
    finishes: dict[str, dict[float, bool]], vram: float, ram: int, prefer: Prefer,
) -> None:  # fmt: skip
    """Seconds of the first that really fits against the best of all that do, of its quality class or better."""

    def fits(s: str) -> bool:
        return finishes[s].get(vram, False) and truths[s].host <= ram * GIB

    if not ids or ids[0] not in truths or vram not in finishes[ids[0]] or prefer == "memory":
        return
    first = ids[0]
    if not fits(first):
        out.missed += 1
        return
    worst = estimates[first].quality.rank
    others = [s for s in truths if fits(s) and estimates[s].quality.rank <= worst]
    out.ratios.append(truths[first].steady / min(truths[s].steady for s in others))


def _print(job: Job, worst: int) -> None:
    print(f"{job.name}: {job.runs} runs; VRAM p50 {p50(job.vram):.1%} p95 {p95(job.vram):.1%}, tensors p95 {p95(job.tensors):.1%}; RAM p50 "
          f"{p50(job.ram):.1%} p95 {p95(job.ram):.1%}; seconds p50 {p50(job.seconds):.1%} p95 {p95(job.seconds):.1%}; "
          f"verdicts {share(job.agree):.1%}, near {share(job.near):.1%} of {len(job.near)}, false fits {job.false_fits}; "
          f"best choice {max(job.ratios, default=1):.2f} at worst, {job.missed} missed; "
          f"{job.ms[0]:.0f} ms, {job.ms[1]:.0f} ms again", flush=True)  # fmt: skip
    for error, text in sorted(job.worst, key=lambda w: -abs(w[0]))[:worst]:
        print(f"    {error:+.1%} {text}")
    for text in job.failed:
        print(f"    not compared: {text}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", nargs="*", choices=list(JOBS), metavar="NAME")
    parser.add_argument("--runs", type=int, default=24, help="virtual runs per job at most (default 24)")
    parser.add_argument("--minutes", type=float, default=600.0, help="run nothing new after so long")
    parser.add_argument("--cells", type=int, default=24, help="cells per job (default 24)")
    parser.add_argument("--worst", type=int, default=0, help="print the worst estimates of each job")
    parser.add_argument("--fresh", action="store_true", help="run again what older sources made")
    parser.add_argument("--offline", action="store_true", help="use only the runs on disk")
    parser.add_argument("--record", action="store_true", help="keep the outcome in bench/recorded/planner.json")
    parser.add_argument("--print", action="store_true", help="show what is kept there, and run nothing")
    parser.add_argument("--json", metavar="FILE", help="write the summary there too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
