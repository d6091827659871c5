"""Patch, Trial, Cure: what was written, what ran, and the answer as a whole."""

from __future__ import annotations

from typing import Any, Literal

from oomdoctor.values.base import Stage, Value
from oomdoctor.values.diagnosis import Diagnosis
from oomdoctor.values.strategy import Strategy, StrategyOption
from oomdoctor.values.timeline import MemoryTimeline, Moment


class Reason(Value):
    """Why one hunk of the diff is there, in one sentence a newcomer understands."""

    line: int
    """Line in the patched source."""
    technique: str
    text: str


class Patch(Value):
    source: str
    """The whole patched script."""
    diff: str
    """Unified diff; empty when nothing changes."""
    strategy: str
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()
    """What a person still has to do, each with the exact line to write."""

    @property
    def changed(self) -> bool:
        return bool(self.diff)


class TrialStage(Value):
    stage: Stage
    component: str | None = None
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    seconds: float | None = None


class SavedFile(Value):
    """A file that a script wrote or would have written. A virtual run leaves nothing behind."""

    path: str
    """As the script gave it."""
    what: str
    """``picture 1024x1024 RGB``, ``export_to_video 81 x 832x480 RGB``, ``torch.save``, ``file``."""
    bytes: int | None = None
    """Of the data before any compression; of a ``kept`` file its size."""
    kept: bool = False
    """True: it was written, into a scratch folder that is removed after the run; False: it was not written at all."""


class Trial(Value):
    """One run of a script, virtual or real."""

    device: str
    """``virtual:rtx-3060-12gb`` or ``cuda:NVIDIA GeForce RTX 3060``."""
    ran: Literal["call", "script"]
    """``call``: a harness generated from the Script, no user code; ``script``: the user's file."""
    isolation: Literal["sandbox", "guards", "none"]
    isolated_by: str | None = None
    """The sandbox that was verified (``landlock 7 + seccomp``), or why there is none."""
    outcome: Literal["ok", "oom", "error", "timeout"]
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    context_bytes: int | None = None
    usable_bytes: int | None = None
    """Card memory that the allocator could use: total minus context minus other processes."""
    peak_host_bytes: int | None = None
    """Anonymous + pinned: what gets a process killed."""
    peak_mapped_bytes: int | None = None
    peak_pinned_bytes: int | None = None
    host_limit_bytes: int | None = None
    seconds: float | None = None
    """Predicted (virtual) or measured (real) duration of the run."""
    wall_seconds: float | None = None
    """How long the trial itself took here."""
    stages: tuple[TrialStage, ...] = ()
    alive_at_peak: dict[str, int] = {}
    """Kind of memory (``weights:transformer``, ``activations``, ``workspace``) -> bytes at the peak."""
    peak: Moment | None = None
    """The highest moment of the card's memory, and what was alive then."""
    died: Moment | None = None
    """Where the card's memory ran out, and what was alive then."""
    script_line: int | None = None
    """Line of the script that was running when it ended before its end."""
    timeline: MemoryTimeline | None = None
    """Only when it was asked for."""
    diagnosis: Diagnosis | None = None
    """When it died: the same reading as for a pasted traceback."""
    error: str | None = None
    """Text of the error, traceback included, bounded."""
    ops: int | None = None
    steps_run: int | None = None
    steps_replayed: int | None = None
    files: tuple[SavedFile, ...] = ()
    """What the script saved, or would have."""
    mode: Literal["full", "probe"] = "full"
    """``probe``: the same sizes with the fewest steps that reach every stage."""
    limited_to_bytes: int | None = None
    """A real card that was made to behave like one of this size; the rest was held."""
    outputs: tuple[dict[str, Any], ...] = ()
    """Of a real run: kind, count and size of what each call returned, files that were kept, difference from the
    original's pictures in steps of 0..255."""
    notes: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def peak_vram_bytes(self) -> int | None:
        """Reserved plus context: what the driver's tools would show."""
        if self.peak_reserved_bytes is None:
            return None
        return self.peak_reserved_bytes + (self.context_bytes or 0)

    @property
    def headroom_bytes(self) -> int | None:
        """Card memory that was left at the highest *reserved*; None when it did not finish or is unknown."""
        if self.outcome != "ok" or self.usable_bytes is None or self.peak_reserved_bytes is None:
            return None
        return self.usable_bytes - self.peak_reserved_bytes

    @property
    def fits(self) -> bool:
        """It ran to its end."""
        return self.outcome == "ok"


class ComparisonRow(Value):
    """One of several runs."""

    script: str
    card: str
    trial: Trial
    fits: bool
    """It ran to its end, with the headroom that was asked for."""


class Comparison(Value):
    """Several scripts, several cards: what ``oom-doctor run A B --gpu X --gpu Y`` says."""

    rows: tuple[ComparisonRow, ...] = ()
    fits: bool = False
    """All of them do."""


class Cure(Value):
    """The whole answer."""

    diagnosis: Diagnosis | None = None
    strategy: Strategy | None = None
    why: str
    """Why this strategy, or why nothing fits."""
    patch: Patch | None = None
    original_trial: Trial | None = None
    trial: Trial | None = None
    """The patched script on the virtual card."""
    real_trial: Trial | None = None
    """The patched script on this machine's GPU, where that was asked for."""
    alternatives: tuple[StrategyOption, ...] = ()
    none_fits: bool = False
    unlock: tuple[str, ...] = ()
    explanation: str = ""
    """A dozen lines a newcomer understands."""
    notes: tuple[str, ...] = ()
