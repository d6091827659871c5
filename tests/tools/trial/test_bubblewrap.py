"""The sandbox of machines without Landlock: namespaces around the child, the same filter inside. Needs ``bwrap``."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.trial.sandbox import Policy, bubblewrap, sandbox_available
from oomdoctor.trial.sandbox.verify import CANARY

pytestmark = pytest.mark.skipif(not bubblewrap.works(), reason="bubblewrap is not installed, or may not be used here")
TOOLS = str(Path(__file__).parents[3] / "tools")

_PROGRAM = """
import json, os, sys
sys.path.insert(0, {tools!r})
from oomdoctor.trial import sandbox
sandbox.landlock.abi = lambda: 0
isolation = sandbox.enter(sandbox.Policy.from_dict(json.loads({policy!r})))
def refused(attempt):
    try: attempt()
    except OSError: return True
    return False
print(json.dumps(dict(name=isolation.name, by=isolation.mechanism, missing=isolation.missing, said=[
    refused(lambda: open({canary!r}, "w")), refused(lambda: os.mkdir({outside!r} + "/x")),
    refused(lambda: __import__("socket").socket()), refused(os.fork), refused(lambda: os.kill(1, 9))],
    reads=not refused(lambda: open({canary!r})))))
"""


@pytest.mark.parametrize("listed", [False, True])
def test_promises_hold_without_landlock(tmp_path: Path, listed: bool) -> None:
    scratch, outside = tmp_path / "scratch", tmp_path / "outside"
    scratch.mkdir()
    outside.mkdir()
    (outside / CANARY).write_text("precious")
    policy = Policy(
        scratch=str(scratch),
        canary=str(outside),
        outer="bubblewrap",
        read=(TOOLS,) if listed else None,
        mode="required",
    )
    program = _PROGRAM.format(
        tools=TOOLS, policy=json.dumps(asdict(policy)), canary=str(outside / CANARY), outside=str(outside)
    )
    # As the parent does: what is readable outside decides what is mounted.
    visible = None if not listed else tuple(p for p in policy.readable() if p != str(scratch))
    command = bubblewrap.wrap([sys.executable, "-c", program], write=(str(scratch),), read=visible)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["name"] == "sandbox", answer["missing"]
    assert answer["by"] == "bubblewrap + seccomp"
    assert answer["said"] == [True] * 5 and answer["reads"] is not listed
    assert (outside / CANARY).read_text() == "precious"


def test_it_is_what_remains_without_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    from oomdoctor.trial.sandbox import landlock

    monkeypatch.setattr(landlock, "abi", lambda: 0)
    sandbox_available.cache_clear()
    try:
        assert sandbox_available() == "bubblewrap + seccomp"
    finally:
        sandbox_available.cache_clear()
    assert replace(Policy(), outer="bubblewrap").outer
