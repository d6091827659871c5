"""A Harbor data set: one folder per scenario with task.toml, instruction.md, environment/, solution/ and tests/.

The tests grade with this package, which is installed in the image; they are copied in after the agent has ended, so
the answers are never in its container. Source of the layout: harborframework.com/docs/tasks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from oomdoctor_evals.exports.skill_creator import prompt
from oomdoctor_evals.values import Scenario

_TOML = """version = "1.0"

[metadata]
category = "debugging"
tags = ["diffusers", "cuda", "out-of-memory"]

[agent]
timeout_sec = 1800.0

[verifier]
timeout_sec = 900.0

[environment]
cpus = 2
memory_mb = 8192
"""
_DOCKERFILE = """FROM python:3.11-slim
RUN pip install --no-cache-dir "oom-doctor[run]"
WORKDIR /task
COPY files/ /task/
"""
_TEST = """#!/bin/sh
# Grades /task/answer.json with the scenario beside this file; the reward is 1 for fit@1.25.
mkdir -p /logs/verifier
oom-doctor evals grade /tests/scenario --answer /task/answer.json --reward /logs/verifier/reward.txt
"""
_ANSWER = """

Write your answer to /task/answer.json, an object with these fields:
`verdict` ("fixable", "impossible" or "not_oom"), `patched_script` (the whole text, when fixable),
`diagnosis` {`phase`, `component`, `resource`, `root_cause`}, `predicted` {`peak_vram_mib`},
`unlock` (when impossible: a list of {`vram_mib`} or {`ram_mib`} or {`rule`}), `explanation`, `claims_verified`.
"""


def export(scenarios: Sequence[Scenario], folder: Path) -> list[Path]:
    """Write one task per scenario below ``folder``; returns the folders."""
    return [_task(scenario, folder / scenario.public_id) for scenario in scenarios]


def _task(scenario: Scenario, folder: Path) -> Path:
    files = {
        "task.toml": _TOML,
        "instruction.md": prompt(scenario) + _ANSWER,
        "environment/Dockerfile": _DOCKERFILE,
        "environment/files/script.py": scenario.script,
        "solution/solve.sh": '#!/bin/sh\ncp "$(dirname "$0")/answer.json" /task/answer.json\n',
        "solution/answer.json": _solution(scenario),
        "tests/test.sh": _TEST,
    }
    files |= {f"environment/files/{name}.txt": text for name, text in scenario.evidence.items()}
    hidden = f"tests/scenario/{scenario.family}/{scenario.folder.name}"
    for path in sorted(p for p in scenario.folder.rglob("*") if p.is_file()):
        files[f"{hidden}/{path.relative_to(scenario.folder)}"] = path.read_text(encoding="utf-8")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if name.endswith(".sh"):
            path.chmod(0o755)
    return folder


def _solution(scenario: Scenario) -> str:
    from oomdoctor_evals.agents.oracle import OracleAgent

    answer = OracleAgent().attempt(scenario).answer
    assert answer is not None
    return json.dumps(answer.model_dump(mode="json"), indent=1) + "\n"
