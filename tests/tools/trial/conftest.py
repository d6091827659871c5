"""Shared: code in a freshly confined process (to attack from), and one warm child for the whole session."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.hardware import custom_card
from oomdoctor.trial import Policy, Zygote
from oomdoctor.values import Card

TOOLS = str(Path(__file__).parents[3] / "tools")

_PROGRAM = """
import ctypes, errno, json, os, sys
sys.path.insert(0, {tools!r})
from oomdoctor.trial.sandbox import Policy, enter
scratch, outside = {scratch!r}, {outside!r}
isolation = enter(Policy.from_dict(json.loads({policy!r})))
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*arguments):
    # the errno that the kernel answers, 0 for success
    return 0 if libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)) >= 0 else ctypes.get_errno()
def refused(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
said = {{}}
{code}
print(json.dumps({{"isolation": isolation.name, "missing": isolation.missing, "said": said}}))
"""


def _confined(folder: Path, code: str, **policy: Any) -> dict[str, Any]:
    """``code`` fills the dict ``said``; it knows ``scratch``, ``outside``, ``call`` and ``refused``.

    The answer has ``isolation``, ``missing``, ``said``; or ``died``, the signal that ended the process.
    """
    scratch, outside = folder / "scratch", folder / "outside"
    scratch.mkdir(exist_ok=True)
    outside.mkdir(exist_ok=True)
    (outside / "canary").write_text("precious")
    given = asdict(Policy(**{"scratch": str(scratch), "canary": str(outside), **policy}))
    program = _PROGRAM.format(
        tools=TOOLS, scratch=str(scratch), outside=str(outside), policy=json.dumps(given), code=textwrap.dedent(code)
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    if done.returncode < 0:
        return {"died": -done.returncode}
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.fixture
def confined(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``confined(code, **policy)``: see :func:`_confined`."""
    return lambda code, **policy: _confined(tmp_path, code, **policy)


@pytest.fixture(scope="session")
def card() -> Card:
    return custom_card(4 << 30)


@pytest.fixture(scope="session")
def zygote(card: Card) -> Iterator[Zygote]:
    """One warm child: its imports take seconds."""
    pytest.importorskip("diffusers")
    loading = {"catalogue": TOOLS + "/oomdoctor/models/catalogue", "configs": [], "like": {}, "hf_cache": None}
    with Zygote(None, card, loading) as started:
        yield started
