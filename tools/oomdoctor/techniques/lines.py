"""Techniques that are nothing but a few statements below loading: most of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Technique, Use
from oomdoctor.values import Application

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft


class LinesTechnique(Technique):
    """Subclasses say which statements, why, and how to know them again."""

    verbs: ClassVar[tuple[str, ...]]
    """Methods, functions or attributes that mean this technique, wherever they are called."""
    reason: ClassVar[str]
    """One sentence for a newcomer."""

    @abstractmethod
    def lines(self, draft: Draft, application: Application) -> list[str]:
        """The statements."""

    def write(self, draft: Draft, application: Application) -> None:
        self.tidy(draft, application)
        draft.after_load(self.lines(draft, application), self.phase, self.reason)

    def owns(self, use: Use) -> bool:
        return use.verb in self.verbs
