"""Folders that are sound load, others are named; reports show what was graded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from by_hand import write_scenario
from oomdoctor.errors import InputError
from oomdoctor_evals.agents import agent
from oomdoctor_evals.agents.command import CommandAgent
from oomdoctor_evals.cli import main
from oomdoctor_evals.generator import heldout
from oomdoctor_evals.generator.families import all_families
from oomdoctor_evals.loader import load, load_all
from oomdoctor_evals.report.pages import write_pages
from oomdoctor_evals.report.store import Results
from oomdoctor_evals.running import Result
from oomdoctor_evals.sim.cache import Cache, digest_of
from oomdoctor_evals.sim.simulator import Simulator
from oomdoctor_evals.values import Attempt, Gate, Grade, Scenario


def test_the_question_gives_nothing_away(scenario: Scenario) -> None:
    text = json.dumps(scenario.question())
    assert scenario.id not in text and scenario.public_id in text
    for secret in ("expected", "root_cause", "witness", "load_time", "best", str(scenario.folder)):
        assert secret not in text


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"category": "nonsense"}, "category"),
        ({"provenance": {"kind": "issue"}}, "url"),
        ({"surprise": 1}, "surprise"),
        ({"machine": {"gpu": "rtx-3060-12gb"}}, "ram_mib"),
    ],
)
def test_an_unsound_folder_is_named(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        load(write_scenario(tmp_path / "family" / "variant", **changes))


def test_a_twin_must_exist(tmp_path: Path) -> None:
    write_scenario(tmp_path / "family" / "one", twin="family/two")
    with pytest.raises(InputError, match="family/two"):
        load_all(tmp_path)


def test_no_folder_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="family/variant"):
        load_all(tmp_path)


def test_a_program_is_an_agent(scenario: Scenario, tmp_path: Path) -> None:
    program = tmp_path / "agent.py"
    program.write_text(
        "import json, sys\nq = json.load(sys.stdin)\n"
        "print(json.dumps({'verdict': 'fixable', 'patched_script': q['script'].upper(), 'tokens': 12}))\n"
    )
    attempt = CommandAgent(f"{sys.executable} {program}").attempt(scenario)
    assert attempt.answer is not None and attempt.answer.patched_script == scenario.script.upper()
    assert attempt.tokens == 12


@pytest.mark.parametrize(
    "code", ["print('hello')", "raise SystemExit(3)", "print('[1]')", 'print(\'{"verdict": "maybe"}\')']
)
def test_a_program_that_gives_no_answer_has_not_answered(scenario: Scenario, code: str) -> None:
    attempt = CommandAgent(f"{sys.executable} -c {json.dumps(code)}").attempt(scenario)
    assert attempt.answer is None and attempt.error


def test_unknown_agents_are_refused_with_the_names() -> None:
    with pytest.raises(InputError, match="kitchen_sink"):
        agent("nobody")


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("generic_offload", "pipe.enable_model_cpu_offload()"),
        ("always_sequential", "pipe.enable_sequential_cpu_offload()"),
        ("kitchen_sink", "load_in_4bit"),
        ("keyword", "pipe.vae.enable_tiling()"),
    ],
)
def test_bots_write_what_their_habit_says(scenario: Scenario, name: str, holds: str) -> None:
    answer = agent(name).attempt(scenario).answer
    assert answer is not None and answer.patched_script is not None
    assert holds in answer.patched_script and '.to("cuda")' not in answer.patched_script
    compile(answer.patched_script, "script.py", "exec")


def results(scenario: Scenario) -> Results:
    good = Grade(scenario=scenario.id, family=scenario.family, category=scenario.category, agent="me", expected="fixable",
                 verdict="fixable", safe_fix=True, regret=1.1, fit={"1.25": True, "2": True, "inf": True})  # fmt: skip
    bad = good.model_copy(update={
        "scenario": "by_hand/<two>", "fit": {"1.25": False, "2": False, "inf": False}, "safe_fix": False,
        "gates": (Gate(name="runs", passed=False, reasons=("ends with oom",)),)})  # fmt: skip
    attempts = [Attempt(scenario=g.scenario, agent="me") for g in (good, bad)]
    return Results.of([Result(g, a) for g, a in zip((good, bad), attempts, strict=True)], "me")


def test_pages_show_figures_reasons_and_transcripts(scenario: Scenario, tmp_path: Path) -> None:
    found = results(scenario)
    paths = write_pages([found], tmp_path)
    assert [p.name for p in paths] == ["report.json", "report.md", "report.html"]
    figures = json.loads(paths[0].read_text())["runs"][0]["summary"]
    assert figures["passed"] == 1 and figures["fit"]["1.25"] == 0.5
    assert "50.0 %" in paths[1].read_text() and "ends with oom" in paths[1].read_text()
    page = paths[2].read_text()
    assert "&lt;two&gt;" in page and "<two>" not in page and "load_time" in page


def test_results_come_back_as_they_were_written(scenario: Scenario, tmp_path: Path) -> None:
    found = results(scenario)
    found.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == found
    with pytest.raises(InputError, match="holds no results"):
        Results.read(tmp_path / "nothing.json")


def test_the_command_reports_and_refuses(
    scenario: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results(scenario).write(tmp_path / "results.json")
    assert main(["report", str(tmp_path / "results.json"), "--out", str(tmp_path / "pages")]) == 0
    assert main(["list", "--scenarios", str(scenario.folder.parent.parent)]) == 0
    assert "by_hand/one" in capsys.readouterr().out
    assert main(["run", "--scenarios", str(scenario.folder.parent.parent), "--only", "absent"]) == 2
    assert main(["show", "absent", "--scenarios", str(scenario.folder.parent.parent)]) == 2


def test_a_held_out_draw_is_pinned_without_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = "0123456789abcdef"
    lock = heldout.lock_of(seed)
    assert lock == heldout.lock_of(seed) and seed not in json.dumps(lock)
    assert lock["sha256"] != heldout.lock_of(seed + "0")["sha256"]
    with pytest.raises(InputError, match="16 characters"):
        heldout.lock_of("short")
    monkeypatch.setattr(heldout, "LOCK", tmp_path / "heldout.lock")
    heldout.LOCK.write_text(json.dumps({**lock, "families": "others"}))
    with pytest.raises(InputError, match="families have changed"):
        heldout.generate(seed, tmp_path, Simulator(Cache(None)))


def test_the_pinned_draw_is_of_these_families() -> None:
    """After a change of families: ``openssl rand -hex 16 | oom-doctor evals heldout --lock``, and keep the seed safe."""
    lock = json.loads(heldout.LOCK.read_text())
    assert lock["families"] == digest_of(heldout.FAMILIES)
    assert lock["scenarios"] == sum(len(f.variants) for f in all_families())
