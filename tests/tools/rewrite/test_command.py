"""``oom-doctor rewrite``: files come out as they went in, whatever their encoding, and the installed version decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from oomdoctor import cli

LOAD = 'import torch\nfrom diffusers import FluxPipeline\npipe = FluxPipeline.from_pretrained("a/b", torch_dtype=torch.bfloat16)\n'
SCRIPT = LOAD + 'pipe.to("cuda")\nimage = pipe("a cat").images[0]\n'
OFFLOADED = SCRIPT.replace('pipe.to("cuda")', "pipe.enable_model_cpu_offload()")


def rewritten(folder: Path, name: str, data: bytes, *options: str) -> bytes:
    (folder / name).write_bytes(data)
    new = folder / f"new_{name}"
    asked = ["rewrite", str(folder / name), "--strategy", "model_offload", "--write", str(new), *options]
    assert cli.main(asked) == 0
    return new.read_bytes()


def test_bytes_that_no_change_names_stay(tmp_path: Path) -> None:
    latin = "# -*- coding: latin-1 -*-\n# caf\u00e9\n"
    assert rewritten(tmp_path, "latin.py", (latin + SCRIPT).encode("latin-1")) == (latin + OFFLOADED).encode("latin-1")
    marked = SCRIPT.replace("\n", "\r\n").removesuffix("\r\n").encode("utf-8-sig")
    expected = OFFLOADED.replace("\n", "\r\n").removesuffix("\r\n").encode("utf-8-sig")
    assert rewritten(tmp_path, "marked.py", marked) == expected


def test_a_notebook_stays_a_notebook(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# a title"]},
        {
            "cell_type": "code",
            "metadata": {},
            "outputs": [],
            "source": ["!pip install diffusers\n", *LOAD.splitlines(True)],
        },
        {
            "cell_type": "code",
            "metadata": {},
            "outputs": [],
            "source": ["pipe.to('cuda')\n", "pipe('a cat').images[0]"],
        },
    ]
    data = json.dumps({"cells": cells, "metadata": {"x": 1}, "nbformat": 4, "nbformat_minor": 5}).encode()
    new = json.loads(rewritten(tmp_path, "notes.ipynb", data))
    assert new["metadata"] == {"x": 1} and new["cells"][0] == cells[0]
    code = "".join("".join(cell["source"]) for cell in new["cells"])
    assert "!pip install diffusers" in code and "enable_model_cpu_offload()" in code and "pipe.to" not in code


def test_the_installed_version_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plain.py"
    path.write_text(SCRIPT.replace(", torch_dtype=torch.bfloat16", ""))
    for version, keyword in (("0.42.1", "dtype=torch"), ("0.36.0", "torch_dtype=torch"), (None, "torch_dtype=torch")):
        found = {"python": "3.11", "diffusers": version}
        monkeypatch.setattr("oomdoctor.hardware.detect.interpreter.installed_versions", lambda p, f=found: (p, f))
        assert cli.main(["rewrite", str(path), "--strategy", "dtype(bf16)", "--json"]) == 0
        assert f'"a/b", {keyword}' in json.loads(capsys.readouterr().out)["source"]
