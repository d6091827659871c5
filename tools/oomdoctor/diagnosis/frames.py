"""Frames from pasted tracebacks: Python's own, IPython's old and new, rich's, and notes like ``file.py:12 function``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from oomdoctor.diagnosis.normalise import Page
from oomdoctor.values import Frame

_PYTHON = re.compile(r'\s{0,60}File "([^"\n]{1,500})", line (\d{1,9})(?:, in (\S[^\n]{0,200}))?\s*$')
_IPYTHON = re.compile(r"\s{0,20}File ([^\n:]{1,400}?(?:\.py|>)):(\d{1,9}),? in ([\w.<>]{1,200})")
_CELL = re.compile(r"\s{0,20}(?:Cell )?(In\s?\[\d{1,6}\])(?:, line (\d{1,9}))?(?:,? in ([\w.<>]{1,200}))?")
_OLD_IPYTHON = re.compile(r"\s{0,20}([^\s]{1,400}(?:\.py|<ipython-input[^>\s]{0,80}>)) in ([\w.<>]{1,200})\(")
_INPUT = re.compile(
    r"\s{0,20}(?:Input (In \[\d{1,6}\])|(<ipython-input[^>\n]{0,80}>)) in (<cell line: \d{1,9}>|[\w.<>]{1,200})"
)
_ARROW = re.compile(r"\s{0,20}-{1,8}>\s{0,6}(\d{1,9})\s?(.{0,400})")
_RICH_ARROW = re.compile(r"\s{0,20}[❱>]\s{0,6}(\d{1,9})\s{0,4}(?:[│|]\s{0,4}){0,12}(.{0,400})")
_COMPACT = re.compile(
    r"(?:[^\s:]{1,40} )?((?:[A-Za-z]:)?[^\s:*?\"'(){}]{1,400}\.py):(\d{1,9}),?\s(?:in\s)?(<?[A-Za-z_][\w.]{0,120}>?)"
    r"(?:\([^\n]{0,200}\))?(?:\s+(.{1,400}))?$"
)
_RICH = re.compile(r"\s{0,20}((?:[A-Za-z]:)?[^:*?\"'(){}\n]{1,400}(?:\.py|>)):(\d{1,9}) in (<?[\w.]{1,200}>?)\s*$")
_CARETS = re.compile(r"[\s^~]+$")
_BOUNDARY = (
    "Traceback (most recent call last",
    "During handling of the above",
    "was the direct cause of the following",
)
_LIBRARY = re.compile(
    r"site-packages|dist-packages|/lib/python3|/lib64/python3|[\\/]Lib[\\/]|^<(?!ipython|stdin|string|module)"
    r"|(?:^|/)(?:torch|diffusers|transformers|accelerate|peft|bitsandbytes|torchao|safetensors|huggingface_hub|xformers|"
    r"triton|torchinductor_\w+|gradio|deepspeed|numpy)/"
)


@dataclass(frozen=True)
class Located:
    """A frame and the page line it stands on."""

    frame: Frame
    line: int


@dataclass(frozen=True)
class Frames:
    """All frames of a page and the lines where a traceback, or the next one of a chain, begins."""

    located: tuple[Located, ...]
    boundaries: tuple[int, ...]
    handled: tuple[int, ...]
    """Boundaries that say the error above was being handled: what follows is its consequence."""


def is_library(file: str) -> bool:
    """True for code that the user did not write: installed packages and the interpreter's own."""
    return bool(_LIBRARY.search(file.replace("\\", "/")))


def find_frames(page: Page) -> Frames:
    """Every frame on the page, in its order."""
    located: list[Located] = []
    boundaries: list[int] = []
    handled: list[int] = []
    for i, line in enumerate(page.lines):
        if not line or len(line) > 1_500:
            continue
        if any(mark in line for mark in _BOUNDARY):
            boundaries.append(i)
            if "Traceback" not in line:
                handled.append(i)
            continue
        if "--> " in line or "---->" in line or "❱" in line or line.lstrip().startswith("> "):
            _attach_arrow(line, located)
            continue
        frame = _frame(line)
        if frame is not None:
            located.append(Located(_with_code(frame, page.lines, i), i))
    return Frames(tuple(located), tuple(boundaries), tuple(handled))


def _frame(line: str) -> Frame | None:
    if "File " in line:
        if m := _PYTHON.match(line):
            return Frame(file=m.group(1), line=int(m.group(2)), function=m.group(3))
        if m := _IPYTHON.match(line):
            return Frame(file=m.group(1), line=int(m.group(2)), function=m.group(3))
    if "In" in line or "<ipython" in line:
        if m := _INPUT.match(line):
            return Frame(file=m.group(1) or m.group(2), line=None, function=m.group(3))
        if "In [" in line or "In[" in line:
            m = _CELL.match(line)
            return Frame(file=m.group(1), line=int(m.group(2) or 0) or None, function=m.group(3)) if m else None
    if ".py" in line:
        if m := _OLD_IPYTHON.match(line):
            return Frame(file=m.group(1), line=None, function=m.group(2))
        if m := _RICH.match(line):
            return Frame(file=m.group(1), line=int(m.group(2)), function=m.group(3))
        if m := _COMPACT.match(line.strip()):
            return Frame(file=m.group(1), line=int(m.group(2)), function=m.group(3), code=m.group(4))
    return None


def _with_code(frame: Frame, lines: tuple[str, ...], at: int) -> Frame:
    """The frame with its source line, which Python prints below it."""
    if frame.code is not None or at + 1 >= len(lines):
        return frame
    below = lines[at + 1]
    code = below.strip()
    if not code or _CARETS.match(code) or "File " in below[:40] or not below.startswith((" ", "\t")):
        return frame
    if code[0].isdigit() or "->" in code[:12]:
        return frame  # IPython lists the surroundings with numbers; its arrow marks the line
    return frame.model_copy(update={"code": code[:400]})


def _attach_arrow(line: str, located: list[Located]) -> None:
    """``----> 5 pipe(...)`` belongs to the frame above it."""
    m = _ARROW.match(line) or _RICH_ARROW.match(line)
    if m is None or not located:
        return
    last = located[-1]
    if last.frame.code is None:
        number = last.frame.line or int(m.group(1))
        update = {"code": m.group(2).strip() or None, "line": number}
        located[-1] = Located(last.frame.model_copy(update=update), last.line)


def frames_of(frames: Frames, page: Page, error_line: int) -> tuple[Frame, ...]:
    """The frames that belong to the error on ``error_line``: those above it up to where its traceback begins.

    Pastes sometimes have the message first; then the traceback below it counts.
    """
    rank = page.ranks[error_line] if error_line < len(page.ranks) else None
    mine = [f for f in frames.located if rank is None or page.ranks[f.line] in (None, rank)]
    starts = [b for b in frames.boundaries if b <= error_line and (rank is None or page.ranks[b] in (None, rank))]
    above = [f for f in mine if f.line <= error_line]
    for start in reversed(starts or [-1]):
        group = [f.frame for f in above if f.line >= start]
        if group:
            return tuple(group)
    if above and not starts:
        return tuple(f.frame for f in above)
    ends = [b for b in frames.boundaries if b > error_line]
    limit = ends[1] if len(ends) > 1 else len(page.lines)
    return tuple(f.frame for f in mine if error_line < f.line < limit)
