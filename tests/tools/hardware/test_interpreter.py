"""Versions in the user's interpreter, without importing what they are versions of."""

from __future__ import annotations

import os
import platform
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from oomdoctor.errors import BadInterpreter
from oomdoctor.hardware.detect.interpreter import DISTRIBUTIONS, find_interpreter, installed_versions


@pytest.fixture
def other_python(tmp_path: Path) -> str:
    """An interpreter of its own with a torch that would stop whoever imported it."""
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    folder = next(home.glob("lib/python*/site-packages"), home / "Lib" / "site-packages")
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "torch-2.6.0+cu124.dist-info").mkdir()
    (folder / "torch-2.6.0+cu124.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.6.0+cu124\n")
    (folder / "flash_attn-2.7.4.dist-info").mkdir()
    (folder / "flash_attn-2.7.4.dist-info" / "METADATA").write_text("Name: flash_attn\nVersion: 2.7.4\n")
    (folder / "peft-1.dist-info").mkdir()  # broken: no METADATA
    return str(home / "bin" / "python") if os.name == "posix" else str(home / "Scripts" / "python.exe")


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def test_this_interpreter():
    path, versions = installed_versions()
    assert path == sys.executable
    assert versions["python"] == platform.python_version()
    assert set(versions) == {"python", *DISTRIBUTIONS}
    assert installed_versions(sys.executable)[1] == versions


def test_another_interpreter_is_asked_without_importing(other_python):
    path, versions = installed_versions(other_python)
    assert path == other_python  # a link to the same file as ours, yet another environment
    assert versions["torch"] == "2.6.0+cu124"
    assert versions["flash-attn"] == "2.7.4"
    assert versions["diffusers"] is None
    assert versions["peft"] is None


def test_files_in_the_working_folder_are_not_run(other_python, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    assert installed_versions(other_python)[1]["torch"] == "2.6.0+cu124"


def test_a_command_name_is_looked_up(monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    assert os.path.dirname(find_interpreter(os.path.basename(sys.executable))) == os.path.dirname(sys.executable)


def test_a_folder_names_the_interpreter_inside(tmp_path):
    with pytest.raises(BadInterpreter, match="is a folder.*python"):
        find_interpreter(str(tmp_path))


def test_missing(tmp_path):
    with pytest.raises(BadInterpreter, match="does not exist.*--python"):
        installed_versions(str(tmp_path / "nowhere"))


@pytest.mark.skipif(os.name != "posix", reason="needs a shell script")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit 3", "exit status 3"),
        ("echo hello", "hello"),
        ("echo 'SyntaxError: no' >&2; exit 1", "SyntaxError: no"),
        ("echo '[]'", "does not behave like Python"),
    ],
)
def test_not_a_python(tmp_path, text, message):
    with pytest.raises(BadInterpreter, match="does not behave like Python") as caught:
        installed_versions(script(tmp_path / "fake", text))
    assert message in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="needs file modes")
def test_not_executable(tmp_path):
    (tmp_path / "python").write_text("")
    with pytest.raises(BadInterpreter, match="may not be executed"):
        installed_versions(str(tmp_path / "python"))


@pytest.mark.skipif(os.name != "posix", reason="needs a shell script")
def test_hanging(tmp_path, monkeypatch):
    monkeypatch.setattr("oomdoctor.hardware.detect.interpreter._SECONDS", 0.2)
    with pytest.raises(BadInterpreter, match="did not answer"):
        installed_versions(script(tmp_path / "slow", "exec sleep 5"))
