"""A line on the terminal that says how far a run is: stage, step, memory. Only where a person looks (a terminal)."""

from __future__ import annotations

import shutil
from typing import Any, TextIO

from oomdoctor.units import gib

WIDTH = 24
CLEAR = "\r\x1b[2K"


class Bar:
    """``Bar(sys.stderr)``; call :meth:`close` before anything else is printed."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.phase = ""
        self._drawn = False

    def tell(self, phase: str, words: str) -> None:
        """A phase or a stage begins."""
        self.phase = phase
        self._draw(f"{phase.replace('_', ' ')} {words}")

    def live(self, message: dict[str, Any]) -> None:
        """How far the run is; the keys that ``trial.watching`` sends, from a process that is not trusted."""
        used, total = _number(message.get("reserved_bytes")), _number(message.get("total_bytes"))
        if total <= 0:
            return
        filled = min(WIDTH, round(WIDTH * used / total))
        step = _number(message.get("step"))
        words = f"{_word(message.get('stage'))} {_word(message.get('component'))}".replace("_", " ")
        self._draw(f"[{'#' * filled}{'.' * (WIDTH - filled)}] {gib(used)}/{gib(total)} GiB  {words} {step or ''}")

    def close(self) -> None:
        """Take the line away."""
        if self._drawn:
            self.stream.write(CLEAR)
            self.stream.flush()
            self._drawn = False

    def _draw(self, text: str) -> None:
        width = shutil.get_terminal_size((100, 20)).columns - 1
        self.stream.write(CLEAR + text.rstrip()[:width])
        self.stream.flush()
        self._drawn = True


def _number(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def _word(value: Any) -> str:
    """Printable and short: no escape sequence of a script reaches the terminal."""
    return "".join(c for c in str(value or "")[:40] if c.isprintable())
