"""The same traceback as a terminal, a container, a notebook or a log file shows it, and in the words of older torch.

Message forms: torch 2.1 to 2.13 as in ``c10/cuda/CUDACachingAllocator.cpp`` of those versions.
"""

from __future__ import annotations

import re

_SITE = re.compile(r'File "[^"]*?/site-packages/')
_PROCESS = re.compile(
    r"Tried to allocate (?P<asked>[\d.]+ \w+)\. GPU (?P<gpu>\d+) has a total capacity of (?P<total>[\d.]+ \w+) of which "
    r"(?P<free>[\d.]+ \w+) is free\. (?P<rest>.*?)Of the allocated memory (?P<allocated>[\d.]+ \w+) is allocated by PyTorch, "
    r"and (?P<cached>[\d.]+ \w+) is reserved by PyTorch but unallocated\.",
    re.DOTALL,
)
_HINT_24 = (
    " If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid "
    "fragmentation.  See documentation for Memory Management  "
    "(https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)
_HINT_21 = (
    " If reserved but unallocated memory is large try setting max_split_size_mb to avoid fragmentation.  See documentation "
    "for Memory Management and PYTORCH_CUDA_ALLOC_CONF"
)


def styled(error: str, style: str, os: str = "linux") -> str:
    """``error`` as that kind of person would paste it. Styles: plain, log, docker, colab, smi (as plain)."""
    error = without_our_frames(error)
    folder = {"docker": "/usr/local/lib/python3.11/site-packages/", "colab": "/usr/local/lib/python3.12/dist-packages/"}
    text = _SITE.sub(lambda m: 'File "' + folder.get(style, "/home/me/venv/lib/python3.11/site-packages/"), error)
    if style == "docker":
        text = text.replace('File "script.py"', 'File "/app/script.py"')
        text = _words(text, "2.4")
        return _prefixed(text, "sd-worker-1  | ")
    if style == "colab":
        text = text.replace('File "script.py"', 'File "/tmp/ipython-input-3-1650232410.py"')
        return "---------------------------------------------------------------------------\n" + _words(text, "2.8")
    if style == "log":
        text = _words(text.replace('File "script.py"', 'File "/home/me/gen/script.py"'), "2.1")
        return _prefixed(text, "[2026-10-03 21:14:07,318] ERROR ")
    if os == "windows":
        text = text.replace("/home/me/venv/lib/python3.11/", "C:/Users/me/venv/Lib/")
        return re.sub(r'File "(C:[^"]*)"', lambda m: 'File "' + m.group(1).replace("/", "\\") + '"', text)
    return text


def without_our_frames(error: str) -> str:
    """The traceback without the frames of the virtual card and of the observer: a real card has none."""
    kept: list[str] = []
    ours = False
    for line in error.split("\n"):
        if line.startswith("  File "):
            ours = "/oomdoctor" in line
        elif not line.startswith("    "):
            ours = False
        if not ours:
            kept.append(line)
    return "\n".join(kept)


def _prefixed(text: str, prefix: str) -> str:
    return "".join(prefix + line + "\n" for line in text.rstrip("\n").split("\n"))


def _words(text: str, version: str) -> str:
    """The out-of-memory sentence in the words of an older torch; other texts stay."""
    match = _PROCESS.search(text)
    if match is None:
        return text
    g = match.groupdict()
    if version == "2.1":
        said = (
            f"Tried to allocate {g['asked']}. GPU {g['gpu']} has a total capacty of {g['total']} of which {g['free']} is free. "
            f"{g['rest']}Of the allocated memory {g['allocated']} is allocated by PyTorch, and {g['cached']} is reserved by "
            f"PyTorch but unallocated.{_HINT_21}"
        )
        name = "torch.cuda.OutOfMemoryError"
    else:
        said = match.group(0) + _HINT_24
        name = "torch.cuda.OutOfMemoryError" if version == "2.4" else "OutOfMemoryError"
    text = text[: match.start()] + said + "\n"
    return text.replace("torch.OutOfMemoryError: ", f"{name}: ")
