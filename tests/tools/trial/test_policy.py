"""What a run may read, and the timeline's thinning: pure functions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.trial.output import Output
from oomdoctor.trial.sandbox import Policy, bubblewrap, own_files
from oomdoctor.trial.sandbox.policy import interpreter_paths, is_broad


def test_a_home_folder_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (".ssh", "project"):
        (tmp_path / name).mkdir()
    for name in (".netrc", "script.py"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link.py").symlink_to(tmp_path / ".netrc")
    assert is_broad(str(tmp_path)) and is_broad(str(tmp_path.parent)) and is_broad("/")
    assert own_files(str(tmp_path)) == (str(tmp_path / "script.py"),)
    assert own_files(str(tmp_path / "project")) == (str(tmp_path / "project"),)
    assert own_files("/nowhere") == ("/nowhere",)


def test_the_list_of_readable_paths_has_no_home_in_it() -> None:
    paths = Policy(read=("/data/configs",), scratch="/scratch").readable()
    assert "/data/configs" in paths and "/usr" in paths and "/scratch" in paths
    assert not any(is_broad(p) for p in paths)
    assert Policy(read=None).readable() == ("/",)
    assert "" not in Policy(read=("",)).readable()  # it would mean the current folder
    assert not any(is_broad(p) for p in interpreter_paths())


def test_bubblewrap_mounts_the_outer_folder_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "program", lambda: "/usr/bin/bwrap")
    command = bubblewrap.wrap(["python", "x"], write=("/s/runs",), read=("/usr/lib/deep", "/usr", "/proc/self"))
    assert command[-3:] == ["--", "python", "x"]
    assert command.index("/usr") < command.index("/usr/lib/deep") and "/proc/self" not in command
    assert "--unshare-net" in command and "--die-with-parent" in command
    assert command.index("/s/runs") > command.index("/usr/lib/deep")
    free = bubblewrap.wrap(["python"], write=(), read=None, allow_network=True)
    assert "--unshare-net" not in free and free[free.index("--ro-bind") + 1] == "/"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=30), st.integers(1, 64))
def test_output_keeps_its_end_and_no_more(chunks: list[str], limit: int) -> None:
    output = Output(limit)
    for chunk in chunks:
        output.write(chunk)
    whole = "".join(chunks).encode()
    assert output.tail.last() == whole[-limit:] and output.tail.total == len(whole)
    assert len(output.tail._kept) <= 3 * limit
    assert "\r" not in output.last()


def test_a_progress_bar_is_shown_once() -> None:
    output = Output(1000)
    output.write("start\n 0%\r 50%\r100%\nend\r\n")
    assert output.last() == "start\n100%\nend\n"
