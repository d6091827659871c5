"""``oom-doctor run``: what it takes, what it prints, and its exit status; the runs themselves are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oomdoctor import cli
from oomdoctor.cli.options import policy, split_arguments
from oomdoctor.doctor import Doctor
from oomdoctor.job import Job
from oomdoctor.values import Target, Trial

GIB = 1 << 30
SCRIPT = """
from diffusers import FluxPipeline
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")
pipe("a cat")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "gen.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Job, Target]]:
    """Runs that need 10 GiB: they fit a card with more."""
    seen: list[tuple[Job, Target]] = []

    def prove(self: Doctor, job: Job, source: str | None = None, *, target: Target, **rest: Any) -> Trial:
        seen.append((job, target))
        ok = target.vram_bytes > 10 * GIB
        return Trial(
            device=f"virtual:{target.card.name}", ran="script", isolation="guards", outcome="ok" if ok else "oom",
            peak_allocated_bytes=9 * GIB, peak_reserved_bytes=10 * GIB, context_bytes=0, usable_bytes=target.vram_bytes,
        )  # fmt: skip

    monkeypatch.setattr(Doctor, "prove", prove)
    return seen


Runs = list[tuple[Job, Target]]
Capture = Callable[[], Any]


def test_one_run_gives_one_trial(script: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(script), "--gpu", "rtx-4090", "--json", "--", "--steps", "4", "--", "x"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["outcome"] == "ok" and data["peak_reserved_bytes"] == 10 * GIB
    assert runs[0][0].argv == ("--steps", "4", "--", "x")


def test_several_cards_give_one_table_and_one_no(
    script: Path, runs: Runs, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "all.png"
    arguments = ["run", str(script), "--gpu", "rtx-4090", "--gpu", "rtx-3060-8gb", "--plot", str(picture)]
    assert cli.main(arguments) == 1
    out = capsys.readouterr().out
    assert "fits" in out and "out of memory" in out and picture.stat().st_size > 5000
    assert cli.main([*arguments[:4], "--gpu", "rtx-4080-16gb", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["fits"] is True and [r["trial"]["outcome"] for r in data["rows"]] == ["ok", "ok"]


def test_headroom_decides(script: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["run", str(script), "--gpu", "rtx-4090", "--vram", "12"]
    assert cli.main([*common, "--headroom", "1"]) == 0
    assert cli.main([*common, "--headroom", "3"]) == 1
    assert "too tight" in capsys.readouterr().out


def test_scripts_of_one_name_are_told_apart(script: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    other = script.parent / "sub"
    other.mkdir()
    (other / "gen.py").write_text(SCRIPT)
    assert cli.main(["run", str(script), str(other / "gen.py"), "--gpu", "rtx-4090", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [r["script"] for r in rows] == [str(script), str(other / "gen.py")]


@pytest.mark.parametrize("bad", [["--trace", "t.json"], ["--snapshot", "s.pickle"]])
def test_files_of_one_run_are_refused_for_several(
    script: Path, runs: Runs, bad: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(script), "--gpu", "rtx-4090", "--gpu", "rtx-3060-12gb", *bad]) == 2
    assert "one script and one card" in capsys.readouterr().err and not runs


def test_a_folder_that_is_missing_is_said_before_the_run(
    script: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(script), "--gpu", "rtx-4090", "--trace", "/nowhere/at/all.json"]) == 2
    assert "no such folder" in capsys.readouterr().err and not runs


def test_arguments_are_split_at_the_first_dashes() -> None:
    assert split_arguments(["run", "a.py", "--", "-x", "--", "y"]) == (["run", "a.py"], ["-x", "--", "y"])
    assert split_arguments(["fix", "a.py"]) == (["fix", "a.py"], [])


def test_a_required_sandbox_reads_the_scripts_folder_only(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(script.parent)
    options = cli.build_parser().parse_args(["run", str(script), "--isolation", "sandbox"])
    made = policy(options)
    assert made is not None and made.mode == "required" and made.read == (str(script.parent.resolve()),)
    free = policy(cli.build_parser().parse_args(["fix", str(script)]))
    assert free is not None and free.mode == "auto" and free.read is None
