"""The checkup: it finds what works, and says what is broken instead of breaking."""

from __future__ import annotations

import json

import pytest
from oomdoctor import checkup, cli
from oomdoctor.errors import BadInterpreter


def test_this_installation_works(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("diffusers")
    assert cli.main(["check", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    states = {c["name"]: c["state"] for c in found["checks"]}
    assert found["ok"] and states["virtual card"] == "works" and states["catalogues"] == "works"
    assert "fails" not in states.values()


def test_a_part_that_breaks_is_a_line_not_a_crash(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def broken(python: str | None) -> tuple[checkup.State, str]:
        raise BadInterpreter("no torch there: install it.")

    def bug() -> tuple[checkup.State, str]:
        raise ZeroDivisionError("x")

    monkeypatch.setattr(checkup, "_virtual_card", broken)
    monkeypatch.setattr(checkup, "_sandbox", bug)
    assert cli.main(["check"]) == 1
    printed = capsys.readouterr().out
    assert "FAILS   virtual card   no torch there: install it." in printed
    assert "ZeroDivisionError" in printed and "oom-doctor report" in printed


def test_an_interpreter_without_torch_is_named(tmp_path: object):
    checks = {c.name: c for c in checkup.checkup("/usr/bin/env")}
    assert checks["virtual card"].state == "fails"
    assert checks["catalogues"].state == "works"
