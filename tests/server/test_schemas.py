"""What clients are promised. After a change that is meant:

OOM_DOCTOR_UPDATE_SNAPSHOTS=1 python -m pytest tests/server/test_schemas.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from oomdoctor_mcp.app import INSTRUCTIONS, build
from oomdoctor_mcp.config import Config
from oomdoctor_mcp.docs import tool_table

pytestmark = pytest.mark.anyio
SNAPSHOT = Path(__file__).parent / "snapshots" / "tools.json"
TOOLS = {
    "diagnose_oom", "detect_hardware", "measure_components", "compute_strategies", "rewrite_script", "verify_script",
    "fix_oom",
}  # fmt: skip


async def listed(**settings: Any) -> dict[str, Any]:
    tools = await build(Config(roots=(), **settings)).list_tools()
    return {tool.name: tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools}


async def test_schemas_are_as_recorded():
    found = await listed()
    trusted = await listed(allow_exec=True)
    found = {"tools": found, "annotations with --allow-exec": {name: t["annotations"] for name, t in trusted.items()}}
    text = json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if os.environ.get("OOM_DOCTOR_UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(text, "utf-8")
    assert json.loads(text) == json.loads(SNAPSHOT.read_text("utf-8")), __doc__


async def test_the_tools_are_there_and_strict():
    tools = await listed()
    assert set(tools) == TOOLS
    for name, tool in tools.items():
        assert tool["inputSchema"]["additionalProperties"] is False, name
        assert {"summary", "next_step", "warnings"} <= set(tool["outputSchema"]["properties"]), name
        for parameter, schema in tool["inputSchema"]["properties"].items():
            assert schema.get("description"), f"{name}.{parameter} has no description"
        assert "ctx" not in tool["inputSchema"]["properties"]
        assert "answer" not in tool["inputSchema"]["properties"], "the person answers, not the model"


async def test_no_schema_lets_a_client_choose_an_interpreter_or_a_switch():
    for name, tool in (await listed(allow_exec=True)).items():
        assert not {"python", "allow_exec", "root", "roots", "network", "overwrite"} & set(
            tool["inputSchema"]["properties"]
        ), name


async def test_annotations_tell_the_truth():
    plain, trusted = await listed(), await listed(allow_exec=True)
    for name in TOOLS:
        hints, with_exec = plain[name]["annotations"], trusted[name]["annotations"]
        assert hints["readOnlyHint"] is (name != "rewrite_script")
        assert hints["destructiveHint"] is (name == "rewrite_script")
        assert hints["openWorldHint"] is False
        runs_code = name in ("fix_oom", "verify_script")
        assert with_exec["openWorldHint"] is runs_code
        assert with_exec["destructiveHint"] is (runs_code or name == "rewrite_script")


async def test_descriptions_say_when_to_use_them():
    for name, tool in (await listed()).items():
        assert "When to use" in tool["description"], name
        assert len(tool["description"]) < 1000


def test_instructions_fit_what_clients_keep():
    assert len(INSTRUCTIONS) <= 2048


def test_the_tool_table_has_a_row_per_tool():
    rows = tool_table().splitlines()[2:]
    assert {row.split("`")[1] for row in rows} == TOOLS
    assert all(row.count("|") == 5 for row in rows)
