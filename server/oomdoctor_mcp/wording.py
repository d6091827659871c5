"""Text on its way to a model: bounded, without control characters, in the words of the tools instead of the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")

_SAID = (
    (r"`oom-doctor gpus` lists (all cards|them)", r"the resource oomdoctor://gpus lists \1"),
    (r"`oom-doctor models`", "the resource oomdoctor://models"),
    (r"`oom-doctor strategies SCRIPT[^`]*`", "compute_strategies"),
    (r"`oom-doctor measure SCRIPT[^`]*`", "measure_components"),
    (r"`oom-doctor run SCRIPT[^`]*`", "verify_script"),
    (r"`oom-doctor (?:fix|rewrite) SCRIPT[^`]*`", "fix_oom"),
    (r"`oom-doctor hardware[^`]*`", "detect_hardware"),
    (r"--gpu ('[^']*'|\"[^\"]*\"|CARD)", r"gpu=\1"),
    (r"--vram (\d+)", r"vram_gib=\1"),
    (r"--ram (\d+)", r"ram_gib=\1"),
    (r"--gpu\b", "gpu"),
    (r"--vram\b", "vram_gib"),
    (r"--ram\b", "ram_gib"),
)
_RULES = tuple((re.compile(pattern), words) for pattern, words in _SAID)


def clean(text: str) -> str:
    """``text`` without terminal escapes, control characters and invisible direction marks; new lines and tabs stay."""
    return _CONTROL.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


def tail(text: str, limit: int = 2000) -> str:
    """The cleaned end of ``text``, at most ``limit`` characters."""
    text = clean(text).strip()
    return text if len(text) <= limit else f"[... {len(text) - limit} characters before]\n{text[-limit:]}"


def head(text: str, limit: int) -> str:
    """The cleaned start of ``text``, at most ``limit`` characters."""
    text = clean(text)
    return text if len(text) <= limit else f"{text[:limit]} [{len(text) - limit} more characters]"


def for_tools(text: str) -> str:
    """A message that speaks of the command line's options, in the words of the tools and their arguments."""
    for pattern, words in _RULES:
        text = pattern.sub(words, text)
    return text


def listed(items: Sequence[str], limit: int = 4) -> str:
    """``a, b, c and 3 more``."""
    shown = ", ".join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown
