"""Whole components that stand on the card, over one card or several."""

from __future__ import annotations

from collections.abc import Iterable

from oomdoctor.planner.balance import balanced
from oomdoctor.planner.folding import Fold
from oomdoctor.planner.parts import Part
from oomdoctor.planner.scenario import Scenario
from oomdoctor.planner.schedule import Moment
from oomdoctor.values import Stage


class Spread:
    """Bytes on the card that is fullest at a moment."""

    def __init__(self, scenario: Scenario, parts: dict[str, Part]) -> None:
        self.parts = parts
        self.resident = [n for n, p in parts.items() if p.holding.place.mode == "resident"]
        gpus = scenario.gpus
        self.count = gpus.count if gpus is not None else 1
        kind = gpus.kind if gpus is not None and gpus.count > 1 else None
        self.halves_weights = kind in ("layers", "tensor")
        self.halves_activation = kind == "context"
        self.alone = kind is None
        self._all = self._sum(self.resident)
        self.card: dict[str, int] = {}
        if kind == "components":
            self.card = scenario.cards or balanced({n: p.total for n, p in parts.items()}, self.count)

    def standing(self, moment: Moment, active: str | None) -> tuple[int, int]:
        """Allocated and segment bytes of the components beside the active one, on the card where that runs.

        With nothing active, of the card that holds most.
        """
        if self.alone:
            return self._beside(moment, active)
        there = [n for n in (*self.resident, *moment.present) if n != active and n not in moment.gone]
        if self.card and active is None:
            return max((self._sum(n for n in there if self.card[n] == c) for c in range(self.count)), default=(0, 0))
        if self.card:
            there = [n for n in there if self.card[n] == self.card[active or ""]]
        return self._sum(there)

    def _beside(self, moment: Moment, active: str | None) -> tuple[int, int]:
        """The same for one card: what is resident, less what is gone or active itself, and what came as a whole."""
        allocated, segments = self._all
        parts, gone = self.parts, moment.gone
        for name in gone:
            if parts[name].holding.place.mode == "resident":
                allocated, segments = allocated - parts[name].total, segments - parts[name].segments
        if active is not None and active not in gone and parts[active].holding.place.mode == "resident":
            allocated, segments = allocated - parts[active].total, segments - parts[active].segments
        for name in moment.present:
            if name != active and name not in gone:
                allocated, segments = allocated + parts[name].total, segments + parts[name].segments
        return allocated, segments

    def _sum(self, names: Iterable[str]) -> tuple[int, int]:
        allocated = segments = 0
        for name in names:
            allocated += self.parts[name].total
            segments += self.parts[name].segments
        if self.halves_weights:
            return allocated // self.count, segments // self.count
        return allocated, segments

    def own(self, fold: Fold) -> int:
        """Bytes of the active component's weights at the peak."""
        weights = fold.peak - fold.activation
        return weights // self.count if self.halves_weights else weights

    def own_segments(self, name: str) -> int:
        segments = self.parts[name].segments
        return segments // self.count if self.halves_weights else segments

    def activation(self, fold: Fold, stage: Stage) -> int:
        """Only the steps are shared out: the text encoders and the VAE do all their work on every card."""
        shared = self.halves_activation and stage is Stage.DENOISE
        return fold.activation // self.count if shared else fold.activation
