"""Pictures: drawn in a child, sent as image content, and never missed where they cannot be."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from oomdoctor_mcp import drawing, pictures
from oomdoctor_mcp.children import Outcome

pytestmark = pytest.mark.anyio
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("tool", ["fix_oom", "verify_script", "compute_strategies"])
async def test_a_picture_comes_when_it_is_asked_for(serve: Any, script: str, tool: str):
    pytest.importorskip("matplotlib")
    from mcp import Client

    async with Client(serve()) as client:
        without = await client.call_tool(tool, {"script": script})
        answer = await client.call_tool(tool, {"script": script, "picture": True})
    assert [block.type for block in without.content] == ["text"]
    assert [block.type for block in answer.content] == ["text", "image"]
    assert answer.content[1].mime_type == "image/png"
    assert base64.b64decode(answer.content[1].data).startswith(PNG)
    assert answer.structured_content["warnings"] == without.structured_content["warnings"]


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (Outcome(2, None, ("InputError", "matplotlib is not installed"), ""), "matplotlib is not installed"),
        (Outcome(-9, None, None, "noise"), "could not be drawn"),
        (Outcome(0, {"png": "A" * (pictures.MAX_BASE64 + 1)}, None, ""), "could not be drawn"),
    ],
)
async def test_without_a_picture_the_answer_is_complete(
    serve: Any, connect: Any, script: str, monkeypatch: pytest.MonkeyPatch, ended: Outcome, words: str
):
    async def run(*_: Any) -> Outcome:
        return ended

    monkeypatch.setattr(pictures, "run", run)
    async with connect(serve()) as client:
        answer = await client.call_tool("fix_oom", {"script": script, "picture": True})
    assert not answer.is_error and answer.structured_content["trial"]["outcome"] == "ok"
    assert [block.type for block in answer.content] == ["text"]
    assert any(words in warning for warning in answer.structured_content["warnings"])


async def test_drawing_says_when_matplotlib_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps({"kind": "plan", "plan": {"strategies": []}}))
    assert drawing.main([str(asked)]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["message"] == "matplotlib is not installed"
