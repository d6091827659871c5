"""What a script prints: kept to its last part, so that no amount of it fills the memory. Child side."""

from __future__ import annotations

import io


class _Tail(io.RawIOBase):
    """The last ``limit`` bytes written to it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._kept = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        chunk = bytes(data)  # type: ignore[call-overload]
        self.total += len(chunk)
        self._kept += chunk[-self.limit :]
        if len(self._kept) > 2 * self.limit:
            del self._kept[: -self.limit]
        return len(chunk)

    def last(self) -> bytes:
        return bytes(self._kept[-self.limit :])


class Output(io.TextIOWrapper):
    """A text stream with a ``buffer``, as ``sys.stdout`` is one."""

    def __init__(self, limit: int) -> None:
        self.tail = _Tail(limit)
        super().__init__(self.tail, encoding="utf-8", errors="replace", write_through=True)  # type: ignore[arg-type]

    def last(self) -> str:
        """The end of everything printed so far, as a terminal would show it: progress bars once, in their last state."""
        if not self.closed:
            self.flush()
        text = self.tail.last().decode("utf-8", "replace")
        return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))
