"""Agents: whoever is given a scenario and answers. The bots are what a good grader must not reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from oomdoctor.errors import InputError

from oomdoctor_evals.values import Attempt, Scenario


class Agent(Protocol):
    """Answers scenarios."""

    @property
    def name(self) -> str:
        """How it is called in reports."""
        ...

    def attempt(self, scenario: Scenario) -> Attempt:
        """One attempt. Only the oracle looks at anything but ``scenario.question()``."""
        ...


def agent(name: str) -> Agent:
    """The agent of that name; ``command:PROGRAM ARGS`` is any program (see :mod:`.command`).

    Raises :class:`InputError` with the names that exist.
    """
    from oomdoctor_evals.agents.bots import BOTS
    from oomdoctor_evals.agents.command import CommandAgent
    from oomdoctor_evals.agents.oracle import OracleAgent
    from oomdoctor_evals.agents.scripted import ScriptedAgent

    if name.startswith("command:"):
        return CommandAgent(name.removeprefix("command:"))
    known: dict[str, Callable[[], Agent]] = {**BOTS, "oracle": OracleAgent, "scripted": ScriptedAgent}
    if name not in known:
        raise InputError(f"There is no agent {name!r}. There are: {', '.join(sorted(known))}, command:PROGRAM.")
    return known[name]()
