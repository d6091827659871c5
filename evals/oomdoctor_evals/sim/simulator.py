"""Ask the virtual card: what happens when this script runs on that machine."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from oomdoctor.hardware import card
from oomdoctor.models import CATALOGUE
from oomdoctor.trial.zygote import Zygote, card_dict
from oomdoctor.values import Card

from oomdoctor_evals.sim.cache import Cache, default_folder, simulator_digest
from oomdoctor_evals.values import MIB, Machine, Observed

UNLIMITED_BYTES = 4 << 40
LESS_VRAM = 0.97
"""The hidden perturbation: this share of the card's free memory."""
TIMEOUT_S = 420.0


class ObservingZygote(Zygote):
    """oomdoctor's warm child with the grader's observer in every run."""

    child = Path(__file__).parent / "child.py"


class Simulator:
    """Runs scripts, each in a fork of its own, and keeps what came out. Use as a context manager."""

    def __init__(self, cache: Cache | None = None, *, timeout: float = TIMEOUT_S) -> None:
        self.cache = cache if cache is not None else Cache(default_folder())
        self.timeout = timeout
        self.runs = 0
        self._zygote: Zygote | None = None

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    # ------------------------------------------------------------------ questions
    def original(self, source: str, machine: Machine) -> Observed:
        """The script on the machine as it is: for evidence, not for grading."""
        return self._ask(source, machine, twice=False, share=1.0)

    def graded(self, source: str, machine: Machine) -> Observed:
        """The script on the machine under the hidden perturbations: less memory, every call made a second time with
        other words and another seed. The seconds are those of the first calls."""
        return self._ask(source, machine, twice=True, share=LESS_VRAM)

    def reference(self, source: str, machine: Machine) -> Observed:
        """The script without any limit, on the machine's card: what work it does, and how long resident."""
        return self._ask(source, machine, twice=False, share=None)

    # ------------------------------------------------------------------ asking
    def _ask(self, source: str, machine: Machine, *, twice: bool, share: float | None) -> Observed:
        question = {"source": source, "gpu": machine.gpu, "count": machine.count, "twice": twice, "share": share}
        if share is not None:
            question |= {"ram": machine.ram_mib, "others": machine.used_by_others_mib}
        stored = self.cache.get(question, simulator_digest())
        if stored is None:
            stored = self._run(source, machine, twice=twice, share=share)
            if stored.get("outcome") != "timeout":  # says how busy this machine was, not what the script does
                self.cache.put(question, simulator_digest(), stored)
        return Observed.model_validate(stored)

    def _run(self, source: str, machine: Machine, *, twice: bool, share: float | None) -> dict[str, Any]:
        self.runs += 1
        one = card(machine.gpu)
        request = {
            "source": source,
            "path": "script.py",
            "argv": [],
            "cards": [self._card(one, machine, share) for _ in range(machine.count)],
            "ram_bytes": machine.ram_mib * MIB if share is not None else None,
            "observe": {"twice": twice},
        }
        answer = self._child(one).run(request, timeout=self.timeout)
        kept = {k: v for k, v in answer.items() if k in Observed.model_fields}
        if kept.get("error"):
            kept["error"] = str(kept["error"])[-6000:]
        return kept

    @staticmethod
    def _card(one: Card, machine: Machine, share: float | None) -> dict[str, Any]:
        if share is None:
            return card_dict(one, total_bytes=UNLIMITED_BYTES)
        free = one.total_bytes - machine.used_by_others_mib * MIB
        return card_dict(one, other_process_bytes=one.total_bytes - int(free * share))

    def _child(self, one: Card) -> Zygote:
        if self._zygote is None:
            self._zygote = ObservingZygote(
                None, one, {"catalogue": str(CATALOGUE), "configs": [], "like": {}, "hf_cache": None}
            )
            self._zygote.start()
        return self._zygote
