"""The README: two commands, an exchange that the code still gives, and no claim that lost its ground."""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path

import pytest
from oomdoctor.rewrite import rewrite
from oomdoctor.script import read_script
from oomdoctor.values import Strategy

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLE = ROOT / "examples" / "flux-12gb"
EXCHANGE = README.split("<!-- exchange -->")[1].split("<!-- end exchange -->")[0]


def test_there_are_two_commands_each_on_one_line():
    commands = re.findall(r"```sh\n(.*?)```", README, re.S)
    assert len(commands) == 2
    for command in commands:
        assert command.count("\n") == 1 and "-c constraints.txt" in command and "pip install" in command
    assert "examples/flux-12gb/script.py" in commands[0]
    assert all(word in commands[1] for word in ("ruff check", "mypy", "pytest"))


def test_ci_runs_the_second_command():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "<!-- test-command -->" in script and README.count("<!-- test-command -->") == 1


def test_constraints_are_exact_complete_and_name_no_place():
    lines = [x for x in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if x and not x.startswith("#")]
    assert "torch==2.13.0" in lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.!]+(; python_version (<|>=) \"3\.\d+\")?", line), line
    named = {line.split("==")[0] for line in lines}
    wanted = re.findall(r'^\s*"([A-Za-z0-9_-]+)(?:\[[\w,]+\])?>=', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    inline = re.findall(r'"([A-Za-z0-9_-]+)>=[\d.]+"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert {w.lower() for w in (*wanted, *inline)} - {"inspect-ai"} <= named


def test_the_diff_is_what_the_rewriter_writes():
    strategy = re.search(r"\*\*`([^`]+)`\*\*", EXCHANGE)
    shown = re.search(r"```diff\n(.*?)```", EXCHANGE, re.S)
    assert strategy and shown
    source = (EXAMPLE / "script.py").read_text("utf-8")
    patch = rewrite(source, Strategy.parse(strategy[1]), script=read_script(source))
    assert patch.changed
    added = {x for x in difflib.ndiff(source.splitlines(), patch.source.splitlines()) if x.startswith("+ ")}
    assert {"+ " + x[1:] for x in shown[1].splitlines() if x.startswith("+") and not x.startswith("+++")} == added


def test_the_pasted_message_is_the_examples():
    shown = re.search(r"torch\.OutOfMemoryError: .*", EXCHANGE)
    assert shown and shown[0].rstrip(".") in (EXAMPLE / "traceback.txt").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_figures_are_still_what_the_tool_answers(anyio_backend: str):
    """``python bench/readme_exchange.py --write`` renews them."""
    pytest.importorskip("diffusers")
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import readme_exchange
    finally:
        sys.path.remove(str(ROOT / "bench"))
    new = readme_exchange.exchange(await readme_exchange.ask())

    def first_row(text: str) -> tuple[str, float, float]:
        found = re.search(r"\| \*\*`([^`]+)`\*\* \| ([\d.]+) \| ([\d.]+) \|", text)
        assert found, text
        return found[1], float(found[2]), float(found[3])

    assert first_row(new)[0] == first_row(EXCHANGE)[0]
    assert first_row(new)[1:] == pytest.approx(first_row(EXCHANGE)[1:], rel=0.1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
