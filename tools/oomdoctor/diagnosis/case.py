"""Everything that is known about one failure, gathered for the advice."""

from __future__ import annotations

from dataclasses import dataclass

from oomdoctor.diagnosis.accidents import Finding
from oomdoctor.diagnosis.context import Context
from oomdoctor.diagnosis.families import Numbers, Sighting
from oomdoctor.diagnosis.kinds import Verdict
from oomdoctor.diagnosis.numbers import Owners
from oomdoctor.diagnosis.stages import Place
from oomdoctor.diagnosis.tensors import Match
from oomdoctor.values import DeviceFamily, Frame, Hardware, Kind, Script, Stage


@dataclass(frozen=True)
class Case:
    """A memory failure, read and judged; the advice only looks things up in it."""

    sighting: Sighting
    verdict: Verdict
    place: Place
    owners: Owners
    context: Context
    frames: tuple[Frame, ...] = ()
    weights: tuple[Match, ...] = ()
    """Well-known tensors whose size is the request's."""
    scores: str | None = None
    """The sentence that the request is an attention score matrix."""
    findings: tuple[Finding, ...] = ()
    """Accidents that the script shows."""
    regression: str | None = None
    """A library version that needs more memory than its neighbours, established."""
    script: Script | None = None
    hardware: Hardware | None = None

    @property
    def numbers(self) -> Numbers:
        return self.sighting.numbers

    @property
    def device(self) -> DeviceFamily | None:
        return self.sighting.family.device

    @property
    def kind(self) -> Kind:
        return self.verdict.kind

    @property
    def stage(self) -> Stage:
        return self.place.stage

    @property
    def offloading(self) -> frozenset[str]:
        """Names of the offloading calls that the script's main pipeline makes already."""
        use = self.script.main if self.script else None
        calls = (o for o in use.optimisations if o.runs is not False) if use else ()
        return frozenset(o.method.rpartition(".")[2] for o in calls if "offload" in o.method)
