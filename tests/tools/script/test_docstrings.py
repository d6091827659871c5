"""Every example in the docstrings of the installed diffusers' pipelines; 63 of them against what a person read in them.

``data/docstring_truth.jsonl`` was written by hand from the examples of diffusers 0.42.1, one object a line: ``uses``
(variable, class, model, dtype), ``parts`` (components that are loaded separately), ``placed``, ``techniques`` and
``calls`` with every argument that is not a prompt, picture, embedding or generator.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.errors import NotPython
from oomdoctor.script import read_script
from oomdoctor.script.harness import harness
from oomdoctor.values import Placement, Script

TRUTH = [json.loads(line) for line in (Path(__file__).parent / "data/docstring_truth.jsonl").read_text().splitlines()]
CONTENT = re.compile(r"(^|negative_|neg_)prompt(_\d|_embeds)?$|image|video$|mask$|generator|latents|embeds|keyframe")
LINE = re.compile(r"\s*(>>>|\.\.\.)(?: (.*))?$")


def package() -> Path:
    spec = importlib.util.find_spec("diffusers")
    if spec is None or spec.origin is None:
        pytest.skip("diffusers is not installed")
    return Path(spec.origin).parent / "pipelines"


@cache
def examples() -> list[tuple[str, str]]:
    """(file, code) of every ``>>>`` block, without importing anything."""
    out = []
    for path in sorted(package().rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Constant) and isinstance(node.value, str) and ">>> " in node.value):
                continue
            block: list[str] = []
            for line in [*node.value.splitlines(), "```"]:
                if match := LINE.match(line):
                    block.append(match[2] or "")
                elif "```" in line and block:
                    out.append((path.relative_to(package()).as_posix(), "\n".join(block) + "\n"))
                    block = []
    return out


def loads_a_pipeline(code: str) -> bool:
    return bool(re.search(r"\w*Pipeline\w*\.from_\w+\(", code))


def test_every_example_is_read() -> None:
    read = 0
    for file, code in examples():
        try:
            ast.parse(code)
        except SyntaxError:
            with pytest.raises(NotPython):
                read_script(code)
            continue
        script = read_script(code)
        if not loads_a_pipeline(code):
            continue
        read += 1
        assert script.main is not None, file
        use = script.main
        assert use.kind == "pipeline" and use.class_name, file
        assert use.model.value is not None or use.loader == "constructor", file
        if re.search(r"(?<!# )\b\w+\.to\(|\)\.to\($|\)\.to\(\"cuda", code):
            assert any(u.placements for u in script.pipelines), file
        called = re.findall(r"^(?:\w+(?:, \w+)* = )?(\w+)\(", code, re.MULTILINE)
        for use in script.pipelines:
            if use.variable in called:
                assert use.calls, (file, use.variable)
    assert read > 250


def test_every_example_gives_a_call_run_that_parses() -> None:
    for file, code in examples():
        if not loads_a_pipeline(code):
            continue
        try:
            script = read_script(code)
        except NotPython:
            continue
        if script.main is not None and script.main.library not in ("diffusers", None, "?"):
            continue  # one example misspells the package
        text = harness(script)
        ast.parse(text)
        # One place still has to be a call: what the example calls, the call run calls.
        if script.main is not None and script.main.calls:
            assert re.search(r"^ *(pipe(_\d+)?_result = )?pipe(_\d+)?\(", text, re.MULTILINE), file


def find(truth: dict[str, Any]) -> Script:
    uses = truth["uses"]
    wanted = [truth["has"]] if "has" in truth else [u[1] for u in uses] + [u[2] for u in uses if u[2]]
    for file, code in examples():
        # A second use may take its model from the first, so its class is what identifies it.
        if file == truth["file"] and all(w in code for w in wanted):
            return read_script(code)
    pytest.skip(f"this version of diffusers has no such example in {truth['file']}")


def placed(placement: Placement) -> str:
    words = [placement.target, placement.device.value or "-", placement.dtype.value, placement.chained and "chained"]
    return " ".join(word for word in words if word)


@pytest.mark.parametrize("truth", TRUTH, ids=lambda t: t["file"] + t.get("has", "")[:20])
def test_against_the_ground_truth(truth: dict[str, Any]) -> None:
    script = find(truth)
    pipelines = [u for u in script.pipelines if u.kind == "pipeline"]
    assert [[u.variable, u.class_name, u.model.value, u.dtype.value] for u in pipelines] == truth["uses"]
    parts = {
        f"{use.variable}.{part.name}": [part.class_name, part.model.value]
        for use in pipelines
        for part in use.components
        if part.loader is not None
    }
    expected = truth["parts"]
    assert {name: part for name, part in parts.items() if name in expected} == expected
    if len({u.variable for u in pipelines}) == len(pipelines):
        assert set(parts) == set(expected)
    assert [placed(p) for u in pipelines for p in u.placements] == truth["placed"]
    assert [o.method for u in pipelines for o in u.optimisations] == truth["techniques"]
    calls = [
        [call.pipeline, {n: known.value for n, known in call.arguments.items() if not CONTENT.search(n)}]
        for use in pipelines
        for call in use.calls
    ]
    assert calls == truth["calls"]
    assert [c.pipeline for u in pipelines for c in u.part_calls] == truth.get("part_calls", [])
    if "variant" in truth:
        assert {u.variant.value for u in pipelines} == {truth["variant"]}


def test_there_are_sixty_truths() -> None:
    assert len({(t["file"], t.get("has")) for t in TRUTH}) >= 60
