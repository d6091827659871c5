"""Any program as an agent: the question as JSON on its stdin, the answer as JSON on its stdout.

Question: ``{id, script, evidence, machine, preference}``. Answer: the fields of :class:`~oomdoctor_evals.values.Answer`,
and optionally ``transcript``, ``tokens`` and ``cost`` beside them.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from typing import Any

from oomdoctor.errors import InputError
from pydantic import ValidationError

from oomdoctor_evals.values import Answer, Attempt, Scenario, ToolCall

TIMEOUT_S = 900.0


class CommandAgent:
    """Runs a program for each scenario."""

    def __init__(self, command: str, *, timeout: float = TIMEOUT_S) -> None:
        self.argv = shlex.split(command)
        if not self.argv:
            raise InputError("command: needs a program, as in --agent 'command:python my_agent.py'.")
        self.timeout = timeout
        self.name = f"command:{self.argv[0].rsplit('/', 1)[-1]}"

    def attempt(self, scenario: Scenario) -> Attempt:
        """One run of the program. What it does wrong is an attempt without an answer."""
        start = time.monotonic()
        base: dict[str, Any] = {"scenario": scenario.id, "agent": self.name}
        try:
            done = subprocess.run(
                self.argv, input=json.dumps(scenario.question()), capture_output=True, text=True, timeout=self.timeout,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Attempt(**base, error=f"took longer than {self.timeout:.0f} s", seconds=self.timeout)
        except OSError as error:
            raise InputError(f"{self.argv[0]} cannot be started: {error.strerror}.") from None
        seconds = time.monotonic() - start
        if done.returncode:
            return Attempt(**base, error=f"ended with status {done.returncode}: {done.stderr[-400:]}", seconds=seconds)
        try:
            said: dict[str, Any] = json.loads(done.stdout)
            extra = {k: said.pop(k) for k in ("tokens", "cost") if k in said}
            calls = tuple(ToolCall.model_validate(c) for c in said.pop("transcript", ()))
            return Attempt(**base, answer=Answer.model_validate(said), transcript=calls, seconds=seconds, **extra)
        except (ValueError, ValidationError, AttributeError, TypeError) as error:
            return Attempt(**base, error=f"is no answer: {str(error)[:400]}", seconds=seconds)
