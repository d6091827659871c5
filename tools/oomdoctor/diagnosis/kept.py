"""Signs that memory was kept from an earlier run: a first success, or a first failure that was caught."""

from __future__ import annotations

from oomdoctor.diagnosis.normalise import Page, Progress
from oomdoctor.diagnosis.select_error import Chosen
from oomdoctor.diagnosis.stage_rules import LOADING_BARS


def kept_between(chosen: Chosen, page: Page) -> tuple[str, ...]:
    """Sentences about memory that may be kept, when the text shows that this was not the first run."""
    out = []
    if chosen.earlier is not None:
        out.append(
            "This failed while an earlier out-of-memory error was being handled: inside the except block the first "
            "error's frames keep all their tensors alive. Retry after the block, with the exception dropped."
        )
    if _finished_before(page.progress, chosen.sighting.line):
        out.append(
            "An earlier run in the same process finished: what fails now is what that run left behind. Keep results on "
            "the CPU, delete references to outputs, and call torch.cuda.empty_cache() between runs."
        )
    return tuple(out)


def _finished_before(progress: tuple[Progress, ...], line: int) -> bool:
    """One bar of steps reached its end and a later one of as many steps began."""
    steps = [p for p in progress if p.line <= line and p.of > 1 and not LOADING_BARS.search(p.label)]
    finished: set[int] = set()
    for p in steps:
        if p.n >= p.of:
            finished.add(p.of)
        elif p.of in finished:
            return True
    return False
