"""Finding the interpreter that runs the user's scripts, when the tool's own has no torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from oomdoctor import interpreter

pytestmark = pytest.mark.skipif(os.name != "posix", reason="makes programs of shell scripts")


def program(folder: Path, name: str, answer: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {answer}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "find_spec", lambda name: None)


def test_the_variable_comes_first():
    assert interpreter.default_python({interpreter.VARIABLE: "/x/python"}) == "/x/python"


def test_this_interpreter_when_it_has_torch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interpreter, "find_spec", lambda name: object())
    assert interpreter.default_python({"VIRTUAL_ENV": "/nowhere"}) is None


def test_the_active_environment_before_the_path(tmp_path: Path, without_torch: None):
    active = program(tmp_path / "venv" / "bin", "python", "True")
    program(tmp_path / "usr", "python3", "True")
    env = {"VIRTUAL_ENV": str(tmp_path / "venv"), "PATH": str(tmp_path / "usr")}
    assert interpreter.default_python(env) == str(active)


def test_those_without_torch_are_passed_over(tmp_path: Path, without_torch: None):
    program(tmp_path / "venv" / "bin", "python", "False")
    program(tmp_path / "a", "python3", "garbage")
    good = program(tmp_path / "b", "python3", "True")
    env = {"VIRTUAL_ENV": str(tmp_path / "venv"), "PATH": f"{tmp_path / 'a'}:{tmp_path / 'b'}"}
    assert interpreter.default_python(env) == str(good)


def test_never_what_lies_in_the_working_folder(tmp_path: Path, without_torch: None, monkeypatch: pytest.MonkeyPatch):
    program(tmp_path, "python3", "True")
    program(tmp_path / ".venv" / "bin", "python", "True")
    monkeypatch.chdir(tmp_path)
    assert interpreter.default_python({"PATH": "::."}) is None


def test_nothing_found_means_this_one(without_torch: None):
    assert interpreter.default_python({"PATH": os.path.dirname(sys.executable) + "-absent"}) is None
