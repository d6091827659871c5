"""Memory is ``int`` bytes everywhere; this is the only place where it becomes text, or text becomes it."""

from __future__ import annotations

import re

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_FACTORS = {
    "": 1, "b": 1, "byte": 1, "bytes": 1,
    "k": KIB, "kib": KIB, "kb": KIB,
    "m": MIB, "mib": MIB, "mb": MIB,
    "g": GIB, "gib": GIB, "gb": GIB,
    "t": GIB << 10, "tib": GIB << 10, "tb": GIB << 10,
}  # fmt: skip
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*\Z")


def human(n: int | None) -> str:
    """``n`` bytes for people: ``11.6 GiB``, ``560 MiB``, ``unknown`` for None."""
    if n is None:
        return "unknown"
    sign, n = ("-", -n) if n < 0 else ("", n)
    if n >= GIB:
        return f"{sign}{n / GIB:.1f} GiB"
    if n >= MIB:
        return f"{sign}{n / MIB:.0f} MiB"
    if n >= KIB:
        return f"{sign}{n / KIB:.0f} KiB"
    return f"{sign}{n} B"


def gib(n: int) -> str:
    """``n`` bytes as GiB with two digits, without the unit (for table columns)."""
    return f"{n / GIB:.2f}"


def parse_size(text: str, default_unit: str = "") -> int:
    """Bytes from ``"12"``, ``"12GiB"``, ``"11.6 GB"``. GB means GiB here, as card makers and torch mean it.

    Raises ``ValueError`` with the offending text.
    """
    m = _SIZE.match(text)
    if not m:
        raise ValueError(f"{text!r} is not a size; write it like 12, 12GiB or 800MiB")
    unit = (m.group(2) or default_unit).lower()
    if unit not in _FACTORS:
        raise ValueError(f"{text!r}: {m.group(2)!r} is not a unit of memory; use MiB or GiB")
    return int(float(m.group(1)) * _FACTORS[unit])


def duration(seconds: float | None) -> str:
    """Seconds for people: ``0.4 s``, ``38 s``, ``6 min 20 s``, ``unknown`` for None."""
    if seconds is None:
        return "unknown"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
