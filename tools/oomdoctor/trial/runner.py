"""Trials on virtual cards: a script or a generated call, on one card or an unlimited one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from oomdoctor.diagnosis import diagnose
from oomdoctor.errors import OomDoctorError, TrialFailed
from oomdoctor.trial.zygote import Live, Progress, Zygote, card_dict
from oomdoctor.values import Card, Diagnosis, Script, Stage, Trial

UNLIMITED_BYTES = 4 << 40
DEFAULT_TIMEOUT = 300.0


def run_virtual(
    zygote: Zygote,
    source: str,
    *,
    card: Card,
    ran: str = "call",
    path: str = "script.py",
    argv: tuple[str, ...] = (),
    vram_bytes: int | None = None,
    ram_bytes: int | None = None,
    count: int = 1,
    script: Script | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    progress: Progress | None = None,
    live: Live | None = None,
    timeline: bool = False,
    on_snapshot: Callable[[dict[str, Any]], None] | None = None,
) -> Trial:
    """Run ``source`` on ``count`` virtual cards and say how it went.

    ``vram_bytes``: what the process may use of the card, context included (its free memory); the rest counts as held
    by other processes. ``ram_bytes``: limit on anonymous + pinned host memory. ``ran`` names what the source is:
    ``call`` for a generated harness, ``script`` for the user's file. ``timeline``: the Trial gets one. ``on_snapshot``:
    is given the allocator's snapshot, as ``torch.cuda.memory._snapshot`` has it.
    """
    others = max(0, card.total_bytes - vram_bytes) if vram_bytes is not None else 0
    cards = [card_dict(card, other_process_bytes=others) for _ in range(count)]
    request = {"source": source, "path": path, "argv": list(argv), "cards": cards, "ram_bytes": ram_bytes,
               "timeline": timeline, "snapshot": on_snapshot is not None}  # fmt: skip
    answer = zygote.run(request, timeout=timeout, progress=progress, live=live)
    snapshot = answer.pop("snapshot", None)
    if on_snapshot is not None and isinstance(snapshot, dict):
        on_snapshot(snapshot)
    return to_trial(answer, device=f"virtual:{card.name}", ran=ran, script=script)


def run_unlimited(
    zygote: Zygote, source: str, *, card: Card, timeout: float = DEFAULT_TIMEOUT, progress: Progress | None = None
) -> dict[str, Any]:
    """The recorded run that measures: no limit on card or host, timed with the card's rates, with its event trace."""
    request = {
        "source": source,
        "path": "call.py",
        "cards": [card_dict(card, total_bytes=UNLIMITED_BYTES)],
        "ram_bytes": None,
        "recording": True,
    }
    return zygote.run(request, timeout=timeout, progress=progress)


def to_trial(answer: dict[str, Any], *, device: str, ran: str, script: Script | None = None) -> Trial:
    """The child's answer as a value; a death gets the same reading as a pasted traceback."""
    outcome = answer["outcome"]
    keep = {k: v for k, v in answer.items() if k in Trial.model_fields}
    moment = answer.get("oom_moment") if outcome == "oom" else None
    try:
        return Trial.model_validate(
            {
                **keep,
                "device": device,
                "ran": ran,
                "isolation": answer.get("isolation", "guards"),
                "died": {**moment, "line": answer.get("script_line")} if moment else None,
                "diagnosis": _diagnosis(answer, script) if outcome == "oom" else None,
            }
        )
    except (ValidationError, TypeError) as error:
        raise TrialFailed(f"the virtual run gave an answer that is none: {str(error)[:500]}") from None


def _diagnosis(answer: dict[str, Any], script: Script | None) -> Diagnosis | None:
    """Read the run's own traceback; stage and component are what the virtual card knows for certain."""
    moment = answer.get("oom_moment")
    known = moment is not None and moment["stage"] in {s.value for s in Stage} and moment["stage"] != Stage.UNKNOWN
    at = (Stage(moment["stage"]), moment["component"] or None) if moment is not None and known else None
    try:
        reading = diagnose(answer["error"] or "", script=script, at=at)
    except OomDoctorError:
        return None
    return reading.model_copy(update={"script_line": answer.get("script_line") or reading.script_line})
