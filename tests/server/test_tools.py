"""Every tool, over a real client in both eras of the protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def call(client: Any, name: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.call_tool(name, arguments)
    assert not answer.is_error, answer.content[0].text
    assert json.loads(answer.content[0].text) == answer.structured_content
    assert answer.structured_content["summary"]
    assert answer.structured_content["next_step"]
    return answer.structured_content


async def refused(client: Any, name: str, **arguments: Any) -> str:
    answer = await client.call_tool(name, arguments)
    assert answer.is_error
    return answer.content[0].text


async def test_diagnose_reads_a_traceback(serve: Any, connect: Any, traceback: str, script: str):
    async with connect(serve()) as client:
        alone = await call(client, "diagnose_oom", traceback=traceback)
        both = await call(client, "diagnose_oom", traceback=traceback, script=script, detail="full")
    assert alone["is_oom"] and alone["kind"] in ("vram_capacity", "load_time")
    assert alone["requested_bytes"] == 72 << 20
    assert "72 MiB" in alone["summary"]
    assert "frames" not in alone and both["frames"]


async def test_diagnose_tells_what_is_not_memory(serve: Any, connect: Any):
    text = "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    x\nNameError: name 'x' is not defined\n"
    async with connect(serve()) as client:
        assert (await call(client, "diagnose_oom", traceback=text))["is_oom"] is False


async def test_diagnose_without_a_traceback_says_how_to_give_one(serve: Any, connect: Any):
    async with connect(serve()) as client:
        assert "as traceback" in await refused(client, "diagnose_oom")
        assert "as traceback" in await refused(client, "diagnose_oom", traceback="  \n ")


async def test_diagnose_warns_of_a_bad_script_and_goes_on(serve: Any, connect: Any, traceback: str):
    async with connect(serve()) as client:
        answer = await call(client, "diagnose_oom", traceback=traceback, script="def (:")
    assert any("script was not used" in warning for warning in answer["warnings"])


async def test_hardware_is_this_machines(serve: Any, connect: Any):
    async with connect(serve()) as client:
        concise = await call(client, "detect_hardware")
        full = await call(client, "detect_hardware", detail="full")
    assert concise["ram"]["total_bytes"] > 0
    assert isinstance(concise["gpus"], list)
    assert set(concise["versions"]) <= set(full["versions"])


async def test_rewrite_changes_text_and_writes_nothing(serve: Any, connect: Any, script: str, root: Path):
    before = sorted(root.iterdir())
    async with connect(serve()) as client:
        answer = await call(client, "rewrite_script", script=script, strategy="model_offload")
        again = await call(client, "rewrite_script", script=answer["source"], strategy="model_offload")
    assert "enable_model_cpu_offload()" in answer["source"]
    assert answer["diff"] and answer["reasons"]
    assert "written_to" not in answer and sorted(root.iterdir()) == before
    assert not again["diff"] and again["source"] == answer["source"]


async def test_rewrite_writes_a_new_file_when_asked(serve: Any, connect: Any, root: Path):
    async with connect(serve()) as client:
        answer = await call(
            client, "rewrite_script", script_path="flux.py", strategy="model_offload", output_path="flux_12gb.py"
        )
    assert answer["written_to"] == str(root / "flux_12gb.py")
    assert (root / "flux_12gb.py").read_text() == answer["source"]


async def test_rewrite_names_what_is_wrong_with_a_strategy(serve: Any, connect: Any, script: str):
    async with connect(serve()) as client:
        assert "model_offload" in await refused(client, "rewrite_script", script=script, strategy="model_ofload")
        assert "strategy id" in await refused(client, "rewrite_script", script=script, strategy="a b c(")


@pytest.mark.parametrize("tool", ["measure_components", "compute_strategies", "verify_script", "fix_oom"])
async def test_long_tools_take_text_or_a_path(serve: Any, connect: Any, script: str, tool: str):
    async with connect(serve()) as client:
        text = await call(client, tool, script=script)
        path = await call(client, tool, script_path="flux.py")
    assert text["status"] == path["status"] == "done"
    assert text["summary"] == path["summary"]


@pytest.mark.parametrize("tool", ["measure_components", "compute_strategies", "verify_script", "fix_oom"])
async def test_long_tools_refuse_bad_scripts_before_any_child(serve: Any, connect: Any, tool: str, script: str):
    async with connect(serve("slow")) as client:
        assert "No script was given" in await refused(client, tool)
        assert "Give the script once" in await refused(client, tool, script=script, script_path="flux.py")
        assert "line 1" in await refused(client, tool, script="def broken(:\n")
        assert "does not exist" in await refused(client, tool, script_path="nothing.py")


async def test_fix_gives_the_cure_with_its_proof(serve: Any, connect: Any, script: str, traceback: str):
    async with connect(serve()) as client:
        concise = await call(client, "fix_oom", script=script, traceback=traceback, gpu="RTX 3060", ram_gib=64)
        full = await call(client, "fix_oom", script=script, detail="full")
    assert concise["patch"]["diff"] == "-old\n+new\n"
    assert concise["strategy_id"] == "model_offload+vae_tiling"
    assert concise["trial"]["outcome"] == "ok" and concise["original_trial"]["outcome"] == "oom"
    assert "peak VRAM 9.2 GiB" in concise["summary"]
    assert len(concise["alternatives"]) < len(full["alternatives"])
    assert "frames" not in concise["diagnosis"] and full["diagnosis"]["frames"]


async def test_an_honest_no_is_an_answer(serve: Any, connect: Any, script: str):
    async with connect(serve("none")) as client:
        answer = await call(client, "fix_oom", script=script, gpu="RTX 3060")
    assert answer["none_fits"] is True
    assert "512 MiB more VRAM" in answer["summary"]


async def test_the_trace_of_a_measurement_is_not_sent_or_kept(serve: Any, connect: Any, script: str):
    async with connect(serve()) as client:
        answer = await call(client, "measure_components", script=script, detail="full")
        report = await client.read_resource(answer["report"])
    assert "trace" not in answer
    kept = json.loads(report.contents[0].text)
    assert "trace" not in kept and kept["components"]


async def test_strategies_show_the_top(serve: Any, connect: Any, script: str):
    async with connect(serve()) as client:
        few = await call(client, "compute_strategies", script=script, gpu="T4", top=2)
        full = await call(client, "compute_strategies", script=script, gpu="T4", top=20, detail="full")
    assert len(few["strategies"]) == 2 and len(full["strategies"]) == 8
    assert any("6 more" in warning for warning in few["warnings"])
    assert few["strategies"][0]["estimate"]["vram_bytes"] == 9 << 30
    assert "stages" not in few["strategies"][0]["estimate"]
    assert full["illegal"] == {"fp8_casting": "no fp8"}


async def test_questions_besides_are_asked_and_told(serve: Any, connect: Any, script: str):
    questions = ["largest", "smallest_card", "pareto", "formulas"]
    async with connect(serve()) as client:
        plain = await call(client, "compute_strategies", script=script, gpu="T4")
        answer = await call(
            client, "compute_strategies", script=script, gpu="T4", gpu_count=2, about="model_offload", ask=questions
        )
        text = await refused(client, "compute_strategies", script=script, gpu="T4", ask=["cheapest"])
    assert not {"largest", "smallest_card", "pareto", "formulas", "subject", "spreadings"} & set(plain)
    assert {"largest", "smallest_card", "pareto", "formulas", "subject", "spreadings"} <= set(answer)
    for words in ("1360x768", "RTX 4090", "balanced (7.0 GiB on the fullest)"):
        assert words in answer["summary"], words
    assert answer["subject"]["estimate"]["stages"], "the one that was asked about is told in full"
    assert "stages" not in answer["pareto"][0]["estimate"]
    assert "smallest_card" in text


async def test_a_path_in_the_wrong_argument_is_understood_and_mentioned(
    serve: Any, connect: Any, root: Path, traceback: str
):
    (root / "run.log").write_text(traceback)
    async with connect(serve()) as client:
        measured = await call(client, "measure_components", script="flux.py")
        diagnosed = await call(client, "diagnose_oom", traceback="run.log")
    assert any("script_path" in warning for warning in measured["warnings"])
    assert any("traceback_path" in warning for warning in diagnosed["warnings"])
    assert diagnosed["is_oom"]


async def test_a_notebook_as_text(serve: Any, connect: Any, script: str):
    """The SDK parses JSON in strings for parameters that are not plain strings; a notebook must arrive unharmed."""
    cell = {
        "cell_type": "code",
        "source": script.splitlines(True),
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    notebook = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    async with connect(serve()) as client:
        answer = await call(client, "rewrite_script", script=notebook, strategy="model_offload")
    assert "enable_model_cpu_offload()" in answer["source"]


async def test_errors_of_the_command_line_speak_of_arguments(serve: Any, connect: Any, script: str):
    async with connect(serve("error")) as client:
        text = await refused(client, "compute_strategies", script=script, gpu="x")
    assert "oomdoctor://gpus" in text and "vram_gib" in text
    assert "--vram" not in text and "oom-doctor gpus" not in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"widht": 512}, "widht"),
        ({"script": "x", "vram_gib": -1}, "vram_gib"),
        ({"script": "x", "ram_gib": 1e9}, "ram_gib"),
        ({"script": "x", "prefer": "cheap"}, "prefer"),
        ({"script": "x", "wait_s": 601}, "wait_s"),
        ({"script": "x", "gpu": "a" * 81}, "gpu"),
        ({"script": ["x"]}, "script"),
    ],
)
async def test_bad_arguments_are_refused_by_name(serve: Any, connect: Any, arguments: dict[str, Any], named: str):
    async with connect(serve("slow")) as client:
        assert named in await refused(client, "fix_oom", **arguments)


@pytest.mark.parametrize("tool", ["measure_components", "compute_strategies", "verify_script", "fix_oom"])
async def test_an_update_under_a_running_server_is_named(serve: Any, connect: Any, script: str, tool: str):
    async with connect(serve("newer")) as client:
        assert "restart the MCP server" in await refused(client, tool, script=script)
