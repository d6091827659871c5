"""Runs that were made before, in one file: grading anew without a single run.

A test that grades every bot on every scenario takes seconds this way, and it is today's grader that grades. What the
runs were is recorded with the simulator's digest; a run that is not in the file is an error, never made up.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from oomdoctor.errors import InputError

from oomdoctor_evals.sim.cache import Cache, key_of, simulator_digest

_ERROR_TAIL = 600


class NotRecorded(Exception):
    """The file does not hold the run that is asked for."""


class Recorder(Cache):
    """A cache that also remembers which runs were asked for."""

    def __init__(self, folder: Path | None, *, stale_ok: bool = False) -> None:
        super().__init__(folder, stale_ok=stale_ok)
        self.asked: dict[str, dict[str, Any]] = {}

    def get(self, question: dict[str, Any], version: str) -> dict[str, Any] | None:
        answer = super().get(question, version)
        if answer is not None:
            self.asked[key_of(question)] = answer
        return answer

    def put(self, question: dict[str, Any], version: str, answer: dict[str, Any]) -> None:
        super().put(question, version, answer)
        self.asked[key_of(question)] = answer

    def write(self, path: Path) -> None:
        """Everything that was asked for, as one compressed file; the same runs give the same bytes."""
        runs = {key: _short(answer) for key, answer in sorted(self.asked.items())}
        text = json.dumps({"simulator": simulator_digest(), "runs": runs}, sort_keys=True)
        path.write_bytes(gzip.compress(text.encode(), mtime=0))


class Recorded(Cache):
    """The runs of such a file; stands where a simulator's cache stands. :class:`NotRecorded` for any other run."""

    def __init__(self, path: Path) -> None:
        super().__init__(None)
        try:
            stored = json.loads(gzip.decompress(path.read_bytes()))
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"{path} holds no runs: {error}. `oom-doctor evals record` writes them.") from None
        self.simulator: str = stored["simulator"]
        self.runs: dict[str, dict[str, Any]] = stored["runs"]

    def get(self, question: dict[str, Any], version: str) -> dict[str, Any] | None:
        found = self.runs.get(key_of(question))
        if found is None:
            raise NotRecorded(f"no run of this script on {question.get('gpu')} is recorded")
        return found


def _short(answer: dict[str, Any]) -> dict[str, Any]:
    """Of an error, what a grade quotes."""
    error = answer.get("error")
    return {**answer, "error": error[-_ERROR_TAIL:]} if error else answer
