"""Results of a run on disk: grades, transcripts, and what they were measured on."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oomdoctor.errors import InputError
from pydantic import ValidationError

from oomdoctor_evals.report.summary import summary
from oomdoctor_evals.sim.cache import simulator_digest, versions
from oomdoctor_evals.values import Attempt, Grade, Model

if TYPE_CHECKING:
    from oomdoctor_evals.running import Result


class Results(Model):
    """One agent's run."""

    agent: str
    condition: str = "tools"
    """What the agent had at hand: bare, docs, skill, tools, skill+tools, skill+tools-verify."""
    made: str
    """UTC time."""
    simulator: str
    versions: dict[str, str | None]
    python: str
    agreement: dict[str, Any] | None = None
    """How well the simulator agrees with real cards, when a calibration was recorded."""
    grades: tuple[Grade, ...]
    attempts: tuple[Attempt, ...]

    @classmethod
    def of(cls, results: Sequence[Result], agent: str, condition: str = "tools") -> Results:
        """The results of a run that has just ended."""
        return cls(
            agent=agent,
            condition=condition,
            made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            simulator=simulator_digest(),
            versions=versions(),
            python=platform.python_version(),
            grades=tuple(r.grade for r in results),
            attempts=tuple(r.attempt for r in results),
        )

    @property
    def summary(self) -> dict[str, Any]:
        return summary(self.grades)

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Raises :class:`InputError` when the file is none of ours."""
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError) as error:
            raise InputError(
                f"{path} holds no results: {error}. `oom-doctor evals run --out DIR` writes them."
            ) from None
