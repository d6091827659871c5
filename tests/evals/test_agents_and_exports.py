"""The scripted policy over tools that are played here, exports, and what inspect_ai's side does without inspect_ai."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from oomdoctor.errors import InputError
from oomdoctor.hardware import card
from oomdoctor_evals.agents import cached_cli, warm
from oomdoctor_evals.agents.policy import Policy, Tools
from oomdoctor_evals.exports import harbor, skill_creator
from oomdoctor_evals.inspection import inspect_ai
from oomdoctor_evals.inspection.answers import answer_in
from oomdoctor_evals.inspection.conditions import CONDITIONS, PROVING, SKILL, system_text
from oomdoctor_evals.values import Answer, Scenario

GIB = 2**30


def row(name: str, seconds: float, quality: str = "bit-identical", slowdown: float = 1.0) -> dict[str, Any]:
    return {"id": name, "summary": name, "estimate": {"seconds": seconds, "quality": quality, "slowdown": slowdown}}


class Played:
    """Tools that answer from a table and remember what they were asked."""

    def __init__(
        self, rows: list[dict[str, Any]], outcomes: dict[str, tuple[str, float]], *, is_oom: bool = True
    ) -> None:
        self.rows, self.outcomes, self.is_oom = rows, outcomes, is_oom
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        self.asked.append((name, arguments))
        if name == "diagnose_oom":
            return {"is_oom": self.is_oom, "kind": "load_time", "stage": "place", "component": "transformer"}
        if name == "compute_strategies":
            return {"strategies": self.rows, "unlock": ["A card with 20.5 GiB free, such as X, with y.",
                    "48 GiB of RAM (16 GiB more): z fits then.", "Allow quantisation: it was excluded."]}  # fmt: skip
        if name == "rewrite_script":
            return {"source": f"# {arguments['strategy']}"}
        outcome, gib = self.outcomes[arguments["script"].removeprefix("# ")]
        return {"outcome": outcome, "peak_reserved_bytes": int(gib * GIB), "context_bytes": 0}


def play(scenario: Scenario, tools: Played) -> Answer:
    policy = Policy(Tools(tools.call, {}), scenario.question(), free_gib=11.7)
    return anyio.run(policy.answer)


def test_the_fastest_allowed_row_that_passes_is_taken(scenario: Scenario) -> None:
    tools = Played(
        [row("slow", 9.0), row("bnb_nf4(transformer)", 1.0, "noticeable"), row("dies", 2.0), row("bnb_int8(x)", 1.5, "slight"),
         row("good", 3.0)],
        {"dies": ("oom", 12.0), "good": ("ok", 8.0), "slow": ("ok", 3.0)},
    )  # fmt: skip
    answer = play(scenario, tools)
    assert answer.verdict == "fixable" and answer.patched_script == "# good" and answer.claims_verified
    assert answer.predicted.peak_vram_mib == pytest.approx(8 * 1024)
    assert [a["script"] for n, a in tools.asked if n == "verify_script"] == ["# dies", "# good"]


def test_a_patch_without_room_is_taken_only_when_nothing_else_passes(scenario: Scenario) -> None:
    rows = [row("tight", 1.0), row("roomy", 2.0)]
    tools = Played(rows, {"tight": ("ok", 11.6), "roomy": ("ok", 6.0)})
    assert play(scenario, tools).patched_script == "# roomy"
    tools = Played(rows[:1], {"tight": ("ok", 11.6)})
    assert play(scenario, tools).patched_script == "# tight"


def test_nothing_that_passes_is_impossible_with_figures(scenario: Scenario) -> None:
    answer = play(scenario, Played([row("dies", 1.0)], {"dies": ("oom", 12.0)}))
    assert answer.verdict == "impossible" and not answer.claims_verified
    said = [u.model_dump(exclude_none=True) for u in answer.unlock]
    assert {"vram_mib": 20992} in said and {"ram_mib": 49152} in said and {"rule": "quantise"} in said


def test_what_is_not_memory_is_left_alone(scenario: Scenario) -> None:
    tools = Played([], {}, is_oom=False)
    assert play(scenario, tools).verdict == "not_oom"
    assert [name for name, _ in tools.asked] == ["diagnose_oom"]


def test_kept_answers_depend_on_content_and_not_on_names(tmp_path: Path) -> None:
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("x = 1")
    second.write_text("x = 1")
    asked = cached_cli._question(["run", str(first), "--gpu=t4", "--parent-watch"])
    assert asked == cached_cli._question(["run", str(second), "--gpu=t4"])
    second.write_text("x = 2")
    assert asked != cached_cli._question(["run", str(second), "--gpu=t4"])
    assert asked != cached_cli._question(["run", str(first), "--gpu=l4"])


def test_the_command_line_is_asked_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    calls = []

    def ask(arguments: list[str], warm: str) -> dict[str, Any]:
        calls.append(arguments)
        return {"status": 1, "stdout": "{}", "stderr": ""}

    monkeypatch.setattr(cached_cli, "_ask", ask)
    assert [cached_cli.main([str(tmp_path), "-", "models", "--json"]) for _ in range(2)] == [1, 1]
    assert len(calls) == 1 and capsys.readouterr().out == "{}{}"


def test_the_skill_creators_file(scenario: Scenario, tmp_path: Path) -> None:
    path = skill_creator.export([scenario], tmp_path)
    data = json.loads(path.read_text())
    assert data["skill_name"] == SKILL.name
    entry = data["evals"][0]
    assert entry["id"] == 1 and len(entry["expectations"]) == 5
    assert all((tmp_path / name).is_file() for name in entry["files"])
    assert scenario.id not in json.dumps(entry)


def test_the_harbor_task(scenario: Scenario, tmp_path: Path) -> None:
    tomllib = pytest.importorskip("tomllib", reason="in the standard library from Python 3.11")
    (folder,) = harbor.export([scenario], tmp_path)
    tomllib.loads((folder / "task.toml").read_text())
    assert Answer.model_validate_json((folder / "solution/answer.json").read_text()).verdict == "fixable"
    assert (folder / "tests/test.sh").stat().st_mode & 0o100
    seen = [p for p in (folder / "environment").rglob("*") if p.is_file()]
    assert seen and not any("best" in p.read_text() or "root_cause" in p.read_text() for p in seen)
    assert (folder / "tests/scenario/by_hand/one/scenario.json").is_file()


@pytest.mark.parametrize(
    "text",
    [
        '{"verdict": "not_oom"}',
        'Here it is:\n```json\n{"verdict": "not_oom"}\n```\nGood luck.',
        'So: {"verdict": "not_oom"} .',
    ],
)
def test_answers_are_found_in_what_models_write(text: str) -> None:
    assert answer_in(text)[0] == Answer(verdict="not_oom")


@pytest.mark.parametrize("text", ["", "no", "{", '{"verdict": 3}', '{"verdict": "not_oom", "more": 1}'])
def test_what_is_no_answer_says_why(text: str) -> None:
    answer, why = answer_in(text)
    assert answer is None and why


def test_conditions_differ_in_means_only() -> None:
    assert set(CONDITIONS) == {"bare", "docs", "skill", "tools", "skill_tools", "skill_tools_no_verify"}
    assert not set(CONDITIONS["skill_tools_no_verify"].tools) & set(PROVING)
    assert len(system_text(CONDITIONS["skill"])) > len(system_text(CONDITIONS["bare"]))
    with pytest.raises(FileNotFoundError, match="docs=PATH"):
        system_text(CONDITIONS["docs"])


@pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is not None, reason="inspect_ai is installed")
def test_without_inspect_ai_the_way_to_it_is_named() -> None:
    with pytest.raises(InputError, match=r"oom-doctor\[evals\]"):
        inspect_ai()


def test_a_child_is_kept_while_the_same_card_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(warm.Lasting, "start", lambda self: None)
    monkeypatch.setattr(warm.Lasting, "end", lambda self: ended.append(self._setup["card"]["name"]))
    kept, loading = warm.Kept(), {"catalogue": None, "configs": [], "like": {}, "hf_cache": None}
    first = kept(None, card("t4-16gb"), loading, policy=None)
    first.close()
    assert kept(None, card("t4-16gb"), loading, policy=None) is first and not ended
    assert kept(None, card("l4-24gb"), loading, policy=None) is not first and ended == ["t4-16gb"]


def test_commands_go_to_the_process_that_stays_and_it_ends_with_us() -> None:
    worker = warm.Worker()
    try:
        answer = warm.ask(worker.start(), ["models", "--json"])
        assert answer["status"] == 0 and json.loads(answer["stdout"])["models"]
        assert warm.ask(worker.start(), ["run", "absent.py", "--gpu", "t4"])["status"] == 2
        process = worker._process
    finally:
        worker.close()
    assert process is not None and process.returncode == 0
