"""What is kept in the repository of a measured suite: runs, attempts and the report; and scenarios' best answers anew."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from oomdoctor.errors import InputError

from oomdoctor_evals.agents import agent
from oomdoctor_evals.agents.bots import BOTS
from oomdoctor_evals.exploits import exploits
from oomdoctor_evals.grader import grade, honesty, static
from oomdoctor_evals.report.pages import write_pages
from oomdoctor_evals.report.store import Results
from oomdoctor_evals.running import Result
from oomdoctor_evals.sim.cache import simulator_digest
from oomdoctor_evals.sim.recorded import Recorded, Recorder
from oomdoctor_evals.sim.simulator import Simulator
from oomdoctor_evals.values import MIB, Answer, Attempt, Scenario, ToolCall

RUNS, ATTEMPTS = "runs.json.gz", "attempts.json.gz"
EXPLOITED = 2
"""Scenarios on which an exploit is played for the record."""
_PLACE = re.compile(r"(?:/[\w.-]+)+/(site-packages|lib/python[\d.]+|script\.py)")
_PROOFS = ("verify_script", "fix_oom")


def record(
    scenarios: Sequence[Scenario], results: Sequence[Results], out: Path, cache: Recorder, *, wrong: bool = False
) -> list[Path]:
    """Grade every bot, the oracle and the attempts of ``results``; write runs, attempts and report.

    ``wrong``: also run the wrong answers of the scenarios, and each exploit that only a run unmasks on two of them.
    """
    out.mkdir(parents=True, exist_ok=True)
    mine = {s.id for s in scenarios}
    tables: list[Results] = []
    attempts = [_without_places(a) for r in results for a in r.attempts if a.scenario in mine]
    with Simulator(cache) as simulator:
        for group in (*_groups(attempts), *(list(_of_bot(name, scenarios)) for name in ("oracle", *BOTS))):
            tables.append(_graded(scenarios, group, simulator))
        for scenario, attempt in wrong_answers(scenarios) if wrong else ():
            grade(scenario, attempt, simulator)
    cache.write(out / RUNS)
    kept = [_trimmed(a).model_dump(mode="json") for a in attempts]
    (out / ATTEMPTS).write_bytes(gzip.compress(json.dumps(kept, sort_keys=True).encode(), mtime=0))
    return [out / RUNS, out / ATTEMPTS, *write_pages(tables, out)]


def recorded(folder: Path) -> tuple[Simulator, tuple[Attempt, ...]]:
    """What :func:`record` wrote: a simulator that answers from it, and the attempts. Raises :class:`InputError`."""
    try:
        attempts = json.loads(gzip.decompress((folder / ATTEMPTS).read_bytes()))
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{folder / ATTEMPTS}: {error}. `oom-doctor evals record` writes it.") from None
    return Simulator(Recorded(folder / RUNS)), tuple(Attempt.model_validate(a) for a in attempts)


def wrong_answers(scenarios: Sequence[Scenario]) -> Iterator[tuple[Scenario, Attempt]]:
    """The plausible failing patches of all, and each exploit that needs a run on the first two scenarios it suits."""
    for scenario in scenarios:
        for name, source in scenario.wrong.items():
            answer = Answer(verdict="fixable", patched_script=source)
            yield scenario, Attempt(scenario=scenario.id, agent=f"wrong:{name}", answer=answer)
    for name, cheat in exploits().items():
        attempts = ((s, Attempt(scenario=s.id, agent=f"exploit:{name}", answer=cheat.answer(s))) for s in scenarios)
        yield from islice(((s, a) for s, a in attempts if needs_run(s, a)), EXPLOITED)


def needs_run(scenario: Scenario, attempt: Attempt) -> bool:
    """The text and the verdict alone do not decide it."""
    source = attempt.answer.patched_script if attempt.answer is not None else None
    if scenario.expected.verdict != "fixable":
        return False
    return bool(source) and not any(static.broken(scenario.script, source or ""))


def refresh(scenarios: Iterable[Scenario], cache: Recorder) -> Iterator[tuple[Scenario, str]]:
    """Measure the witnesses anew and write the fastest into each scenario; tells of those where none passes."""
    with Simulator(cache) as simulator:
        for scenario in scenarios:
            if scenario.expected.best is None:
                continue
            runs = {n: simulator.graded(source, scenario.machine) for n, source in scenario.witnesses.items()}
            good = {n: run for n, run in runs.items() if run.outcome == "ok" and run.seconds}
            if not good:
                yield scenario, f"no witness passes any more: {sorted(runs)}"
                continue
            name = min(good, key=lambda n: (good[n].seconds or 0.0, n))
            best = {**scenario.expected.best.model_dump(), "seconds": round(good[name].seconds or 0.0, 4),
                    "peak_mib": good[name].peak_vram_bytes // MIB}  # fmt: skip
            if name != scenario.expected.best.answer:
                best["answer"] = name
                yield scenario, f"{name} is the fastest now, not {scenario.expected.best.answer}"
            _write_best(scenario.folder / "scenario.json", best)


def _write_best(path: Path, best: dict[str, Any]) -> None:
    meta = json.loads(path.read_text(encoding="utf-8"))
    meta["expected"] |= {"best": best, "simulator": simulator_digest()}
    path.write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def _graded(scenarios: Sequence[Scenario], attempts: Sequence[Attempt], simulator: Simulator) -> Results:
    known = {s.id: s for s in scenarios}
    epochs: dict[str, int] = {}
    rows = []
    for attempt in attempts:
        epoch = epochs.setdefault(attempt.scenario, 0)
        epochs[attempt.scenario] += 1
        rows.append(Result(grade(known[attempt.scenario], attempt, simulator, epoch=epoch), attempt))
    name = attempts[0].agent
    return Results.of(rows, name, "tools" if name == "scripted" else "bare")


def _groups(attempts: Iterable[Attempt]) -> list[list[Attempt]]:
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(attempt.agent, []).append(attempt)
    return list(groups.values())


def _of_bot(name: str, scenarios: Sequence[Scenario]) -> Iterator[Attempt]:
    bot = agent(name)
    for scenario in scenarios:
        yield bot.attempt(scenario)


def _trimmed(attempt: Attempt) -> Attempt:
    """An attempt with what a grade reads of its transcript: which script was proven, how that ended, which figures the
    tools said."""
    calls = []
    for call in attempt.transcript:
        result: dict[str, Any] = {"figures": honesty.figures((call,))}
        arguments = {}
        if call.tool in _PROOFS and isinstance(call.result, dict) and "outcome" in call.result:
            result["outcome"] = call.result["outcome"]
            arguments = {"script": call.arguments.get("script", "")}
        calls.append(ToolCall(tool=call.tool, arguments=arguments, result=result, seconds=call.seconds))
    return attempt.model_copy(update={"transcript": tuple(calls)})


def _without_places(attempt: Attempt) -> Attempt:
    """Without the folders of the machine on which it was made."""
    return Attempt.model_validate_json(_PLACE.sub(r".../\1", attempt.model_dump_json()))
