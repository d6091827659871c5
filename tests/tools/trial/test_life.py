"""Nothing outlives its parent: killed with SIGKILL, at random moments, while it starts and while it runs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

TOOLS = str(Path(__file__).parents[3] / "tools")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at sessions by number")

_STAND_IN = """
import os, signal, sys, time
sys.path.insert(0, {tools!r})
from oomdoctor.trial.life import end_with_parent, end_with_pipe
lives, held = os.pipe()
pid = os.fork()
if pid == 0:
    os.setsid(); os.close(held)
    zygote = os.getpid()
    os.write(1, b"%d\\n" % zygote)
    end_with_pipe(lives)
    if os.fork() == 0:
        end_with_parent(zygote, lives)
        os.write(1, b"%d\\n" % os.getpid())
    while True:
        time.sleep(0.01)
os.close(lives)
while True:
    signal.pause()
"""

_REAL = """
import sys
sys.path.insert(0, {tools!r})
from oomdoctor.trial import Zygote
from oomdoctor.hardware import custom_card
card = custom_card(4 << 30)
loading = dict(catalogue={tools!r} + "/oomdoctor/models/catalogue", configs=[], like=dict(), hf_cache=None)
zygote = Zygote(None, card, loading)
start = zygote._send
def send(message):
    print(zygote.pid, flush=True)
    start(message)
zygote._send = send
zygote.start()
from oomdoctor.trial.zygote import card_dict
request = dict(source="import time\\nwhile True: time.sleep(0.01)", path="loop.py", cards=[card_dict(card)])
zygote.run(request, timeout=60)
"""


def members(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def gone(session: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while members(session):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def start(program: str) -> tuple[subprocess.Popen[str], int]:
    """The parent, and the session of what it started."""
    command = [sys.executable, "-c", program.format(tools=TOOLS)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@linux
@pytest.mark.parametrize("attempt", range(6))
def test_killed_at_a_random_moment(attempt: int) -> None:
    parent, session = start(_STAND_IN)
    time.sleep(random.random() * 0.15)
    parent.kill()
    parent.wait()
    assert gone(session, within=10)


@linux
def test_a_group_that_is_stopped_dies_too() -> None:
    parent, session = start(_STAND_IN)
    time.sleep(0.1)
    os.killpg(session, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    assert gone(session, within=10)


@linux
def test_the_fork_dies_with_the_zygote_alone() -> None:
    parent, session = start(_STAND_IN)
    try:
        assert parent.stdout is not None and int(parent.stdout.readline()) in {p.pid for p in members(session)}
        os.kill(session, signal.SIGKILL)
        assert gone(session, within=10)
    finally:
        parent.kill()
        parent.wait()


@linux
@pytest.mark.parametrize("attempt", range(2))
def test_the_real_child_dies_while_it_imports(attempt: int) -> None:
    pytest.importorskip("torch")
    parent, session = start(_REAL)
    time.sleep(random.random())
    parent.kill()
    parent.wait()
    assert gone(session, within=10)


@linux
@pytest.mark.slow
def test_the_real_child_dies_while_it_runs() -> None:
    pytest.importorskip("diffusers")
    parent, session = start(_REAL)
    assert parent.stdout is not None
    parent.stdout.readline()  # the request is on its way
    time.sleep(0.2 + random.random())
    assert members(session)
    parent.kill()
    parent.wait()
    assert gone(session, within=10)
