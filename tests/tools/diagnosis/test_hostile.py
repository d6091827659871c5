"""No text takes long, and none makes the reading fail."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oomdoctor.diagnosis import diagnose
from oomdoctor.diagnosis.condense import BUDGET, condense
from oomdoctor.diagnosis.normalise import normalise
from oomdoctor.errors import NoError
from oomdoctor.values import Stage

_MESSAGE = (
    'Traceback (most recent call last):\n  File "/w/draw.py", line 3, in <module>\n    x = pipe.vae.decode(z)\n'
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 12.00 GiB\n"
)
_LOG = "2026-01-02 03:04:05,678 INFO worker: step 12 loss 0.123  24%|██▍       | 12/50 [00:24<01:16,  2.0s/it]\n"
_MB = 1_000_000
_GENEROUS = 3.0
"""Seconds of processor time for texts of up to 10 MB; they take a tenth of it. Anything not linear takes minutes."""


def _seconds(text: str) -> float:
    begin = time.process_time()
    try:
        d = diagnose(text)
    except NoError:
        pass
    else:
        assert len(d.model_dump_json()) < 200_000
    return time.process_time() - begin


_TEXTS = {
    "brackets": lambda: "[" * _MB,
    "nested": lambda: "([{<" * (_MB // 2),
    "escapes": lambda: "\x1b[" * _MB,
    "tags": lambda: "<span " * _MB,
    "entities": lambda: "&#" * _MB,
    "bars": lambda: "12%|" * _MB,
    "frames": lambda: '  File "' * (_MB // 2),
    "dots": lambda: "a." * _MB + "Error:",
    "letters": lambda: "A" * (10 * _MB),
    "blanks": lambda: " " * (10 * _MB),
    "lines": lambda: "\n" * (5 * _MB),
    "short lines": lambda: "ab\n" * (2 * _MB),
    "prefixes": lambda: "[2026-01-01 00:00:00] " * (_MB // 8),
    "messages": lambda: _MESSAGE * 20_000,
    "killed": lambda: "Killed\n" * _MB,
    "killed on one line": lambda: "Killed" * _MB,
    "processes": lambda: "CUDA out of memory. " + "Process 1 has 1.00 GiB memory in use. " * 100_000,
    "paths": lambda: ("x" * 200 + ".py:1 in f(\n") * 20_000,
    "digits": lambda: "Tried to allocate " + "9" * (2 * _MB),
    "binary": lambda: "".join(map(chr, random.Random(7).choices(range(0x2FFF), k=_MB // 2))),
}


@pytest.mark.parametrize("name", _TEXTS)
def test_hostile_text_is_read_in_linear_time(name: str) -> None:
    assert _seconds(_TEXTS[name]()) < _GENEROUS


def test_ten_megabytes_of_log_are_read_and_the_error_is_found() -> None:
    log = _LOG * (10 * _MB // len(_LOG))
    middle = len(log) // 2
    for text in (log + _MESSAGE, log[:middle] + "\n" + _MESSAGE + log[middle:]):
        begin = time.process_time()
        d = diagnose(text)
        assert time.process_time() - begin < _GENEROUS
        assert d.stage is Stage.VAE_DECODE and d.requested_bytes == 2 << 30 and d.script_line == 3


def test_condensing_keeps_to_its_budget_and_order() -> None:
    text = "begin " + "x" * BUDGET + " Tried to allocate HERE " + "y" * BUDGET + " end"
    short = condense(text)
    assert len(short) <= BUDGET + 1_000
    assert short.startswith("begin") and short.endswith(" end")
    assert short.index("HERE") > short.index("x" * 100)
    assert condense("short") == "short"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_any_text_is_read_or_refused(text: str) -> None:
    for t in (text, f"CUDA out of memory. {text}", f"{_MESSAGE}{text}", f"{text}{_MESSAGE}"):
        try:
            d = diagnose(t)
        except NoError:
            assert "CUDA out of memory" not in t
        else:
            assert d.cause and d.next_step


@given(st.text(max_size=300))
def test_the_page_is_consistent(text: str) -> None:
    page = normalise(text)
    assert len(page.lines) == len(page.ranks) == len(page.starts)
    assert page.squeezed == "".join("".join(line.split()) for line in page.lines)
    for i, start in enumerate(page.starts):
        if page.lines[i].split():
            assert page.line_of(start) == i
