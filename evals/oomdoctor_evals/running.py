"""An agent over scenarios: attempts and grades, in parallel processes, each with a warm virtual card of its own."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from oomdoctor_evals.agents import agent as find_agent
from oomdoctor_evals.grader import grade
from oomdoctor_evals.loader import load
from oomdoctor_evals.sim.cache import Cache, default_folder
from oomdoctor_evals.sim.simulator import Simulator
from oomdoctor_evals.values import Attempt, Grade, Scenario

_MINE: dict[str, Any] = {}


@dataclass(frozen=True)
class Result:
    """What one attempt came to."""

    grade: Grade
    attempt: Attempt


@dataclass(frozen=True)
class Settings:
    """How to run."""

    agent: str
    epochs: int = 1
    jobs: int = 2
    cache: Path | None = None
    """None: nothing is kept."""
    stale_ok: bool = False


def run(
    scenarios: Sequence[Scenario], settings: Settings, *, tell: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Every scenario, every epoch, in the order of the scenarios. ``tell`` hears of each as it is done."""
    tasks = [(str(s.folder), epoch) for epoch in range(settings.epochs) for s in scenarios]
    if settings.jobs <= 1:
        _begin(settings)
        try:
            return [_told(_one(task), tell) for task in tasks]
        finally:
            _end()
    with ProcessPoolExecutor(
        min(settings.jobs, len(tasks)), mp_context=get_context("spawn"), initializer=_begin, initargs=(settings,)
    ) as pool:
        return [_told(result, tell) for result in pool.map(_one, tasks)]


def _told(result: Result, tell: Callable[[Result], None]) -> Result:
    tell(result)
    return result


def _begin(settings: Settings) -> None:
    if settings.stale_ok:
        os.environ["OOM_DOCTOR_EVALS_STALE"] = "1"
    cache = Cache(settings.cache if settings.cache else None, stale_ok=settings.stale_ok)
    _MINE["simulator"] = Simulator(cache)
    _MINE["agent"] = find_agent(settings.agent)
    Finalize(None, _end, exitpriority=10)  # a worker of a pool leaves without atexit


def _end() -> None:
    close = getattr(_MINE.pop("agent", None), "close", None)
    if close is not None:
        close()
    simulator = _MINE.pop("simulator", None)
    if simulator is not None:
        simulator.close()


def _one(task: tuple[str, int]) -> Result:
    folder, epoch = task
    scenario = load(Path(folder))
    agent, simulator = _MINE["agent"], _MINE["simulator"]
    start = time.monotonic()
    try:
        attempt: Attempt = agent.attempt(scenario)
    except Exception as error:  # an agent that breaks has not answered
        attempt = Attempt(
            scenario=scenario.id, agent=agent.name, seconds=time.monotonic() - start,
            error=f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}",
        )  # fmt: skip
    return Result(grade(scenario, attempt, simulator, epoch=epoch), attempt)


def usual_cache() -> Path:
    """Where results are kept when nothing else is said."""
    return default_folder()
