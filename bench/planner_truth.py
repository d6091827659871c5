"""What ``bench/planner.py`` compares with: one virtual run per (job, strategy) on an unlimited card, kept on disk.

A run is kept under ``bench/.cache/planner`` by what it depends on: the rewritten script, the versions of the libraries
and the sources of the virtual card. Runs of older sources are used unless ``fresh`` asks for new ones; how many were
is told.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oomdoctor.doctor import Doctor
from oomdoctor.errors import NotApplicable, OomDoctorError
from oomdoctor.job import Job, read_job
from oomdoctor.rewrite import rewrite
from oomdoctor.trial.runner import UNLIMITED_BYTES
from oomdoctor.trial.zygote import card_dict
from oomdoctor.values import Measurement, Strategy, Target

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "bench" / ".cache" / "planner"
KEPT = (
    "outcome", "error", "peak_allocated_bytes", "peak_reserved_bytes", "peak_host_bytes", "peak_pinned_bytes",
    "seconds", "wall_seconds", "stages", "steps_run", "steps_replayed",
)  # fmt: skip
_SIMULATED = ("vgpu", "loading")
_BEFORE = ("load", "quantize", "place")
"""Stages before the call."""


@dataclass(frozen=True)
class Truth:
    """One virtual run. Bytes on the card are without the context."""

    strategy: str
    outcome: str
    reserved: int = 0
    allocated: int = 0
    host: int = 0
    pinned: int = 0
    seconds: float = 0.0
    stages: tuple[dict[str, Any], ...] = ()
    error: str = ""
    current: bool = True
    """Made by the sources that are here now."""

    @property
    def tensors(self) -> int:
        """Bytes that tensors held at most in the call itself."""
        return max(int(s["peak_allocated_bytes"]) for s in self.stages if s["stage"] not in _BEFORE)

    @property
    def steady(self) -> float:
        """Seconds without loading and placing: what a second call would take."""
        return sum(s["seconds"] or 0.0 for s in self.stages if s["stage"] not in _BEFORE)


def sources() -> str:
    """Digest of everything that a virtual run's figures depend on in this tree."""
    digest = hashlib.sha256()
    for folder in _SIMULATED:
        for file in sorted((ROOT / "tools" / "oomdoctor" / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


class Bench:
    """One job on one reference card: its measurement, and its virtual runs."""

    def __init__(self, name: str, source: str, target: Target, fresh: bool = False, run: bool = True) -> None:
        self.name, self.source, self.target, self.fresh, self.run = name, source, target, fresh, run
        self.job: Job = read_job(source, path=f"{name}.py")
        self.folder = CACHE / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sources = sources()
        self._doctor: Doctor | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._doctor is not None:
            self._doctor.__exit__(*exc)

    @property
    def doctor(self) -> Doctor:
        """Started on first use."""
        if self._doctor is None:
            self._doctor = Doctor(target=self.target)
        return self._doctor

    def measurement(self) -> Measurement:
        """The recorded run that planning starts from."""
        file = self.folder / f"measurement-{self._digest(self.source)}.json"
        if not file.exists() and not self.run:
            raise FileNotFoundError(f"{self.name} was not measured yet")
        if not file.exists() or (self.run and self.fresh and self.sources not in file.read_text()[:64]):
            value = self.doctor.measure(self.job)
            file.write_text(json.dumps({"made_by": self.sources, "value": value.model_dump(mode="json")}))
        return Measurement.model_validate(json.loads(file.read_text())["value"])

    def truth(self, strategy: str, measurement: Measurement) -> Truth | None:
        """The run of that strategy; None when it is not on disk and nothing may be run, or when a person would have to
        write part of it by hand: then the run is not one of the strategy."""
        try:
            rewritten(self.job, strategy, measurement, self.target)
        except OomDoctorError:
            return None
        file = self.folder / f"run-{self._digest(strategy + self.source)}.json"
        kept = json.loads(file.read_text()) if file.exists() else None
        if (kept is None or (self.fresh and kept["made_by"] != self.sources)) and self.run:
            answer = self._simulate(strategy, measurement)
            kept = {"strategy": strategy, "made_by": self.sources, **{k: answer.get(k) for k in KEPT}}
            file.write_text(json.dumps(kept))
        return None if kept is None else self._value(kept)

    def limited(self, strategy: str, capacity: int, measurement: Measurement) -> Truth | None:
        """The run of that strategy on a card of ``capacity`` bytes; None when it is not on disk and nothing may be run."""
        file = self.folder / f"limited-{capacity >> 20}-{self._digest(strategy + self.source)}.json"
        kept = json.loads(file.read_text()) if file.exists() else None
        if (kept is None or (self.fresh and kept["made_by"] != self.sources)) and self.run:
            answer = self._simulate(strategy, measurement, capacity)
            kept = {"strategy": strategy, "made_by": self.sources, **{k: answer.get(k) for k in KEPT}}
            file.write_text(json.dumps(kept))
        return None if kept is None else self._value(kept)

    def known(self) -> list[str]:
        """Strategies that are on disk."""
        return sorted({json.loads(f.read_text())["strategy"] for f in self.folder.glob("run-*.json")})

    def record(self, file: Path) -> None:
        """Write the measurement and the runs on disk as one compressed file: what the tests compare with."""
        measurement = self.measurement()
        runs = [self.truth(s, measurement) for s in self.known()]
        kept = [
            {
                "strategy": r.strategy,
                "reserved": r.reserved,
                "allocated": r.allocated,
                "host": r.host,
                "seconds": r.steady,
            }
            for r in runs
            if r is not None and r.outcome == "ok"
        ]
        content = {"script": self.source, "measurement": measurement.model_dump(mode="json"), "runs": kept}
        file.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), 9, mtime=0))

    def _value(self, kept: dict[str, Any]) -> Truth:
        return Truth(
            strategy=kept["strategy"],
            outcome=kept["outcome"],
            reserved=kept["peak_reserved_bytes"] or 0,
            allocated=kept["peak_allocated_bytes"] or 0,
            host=kept["peak_host_bytes"] or 0,
            pinned=kept["peak_pinned_bytes"] or 0,
            seconds=kept["seconds"] or 0.0,
            stages=tuple(kept["stages"] or ()),
            error=(kept["error"] or "")[-2000:],
            current=kept["made_by"] == self.sources,
        )

    def _simulate(self, strategy: str, measurement: Measurement, capacity: int = UNLIMITED_BYTES) -> dict[str, Any]:
        try:
            text = rewritten(self.job, strategy, measurement, self.target)
            request = {
                "source": text,
                "path": f"{self.name}.py",
                "cards": [card_dict(self.target.card, total_bytes=capacity)],
                "ram_bytes": None,
            }
            return self.doctor.zygote.run(request, timeout=400.0)
        except OomDoctorError as reason:
            return {"outcome": "refused", "error": str(reason)}

    @staticmethod
    def _digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def rewritten(job: Job, strategy: str, measurement: Measurement, target: Target) -> str:
    """The job's script under the strategy; the script itself for ``plain``.

    Raises :class:`NotApplicable` when something of it is left to be done by hand.
    """
    value = Strategy.parse(strategy)
    if not value.applications:
        return job.source
    patch = rewrite(
        job.source, value, script=job.script, measurement=measurement, target=target, versions=target.versions
    )
    if patch.by_hand:
        raise NotApplicable(f"{strategy}: {' '.join(patch.by_hand)}")
    return patch.source
