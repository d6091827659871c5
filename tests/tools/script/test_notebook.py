"""Notebooks: cells, magics, and writing the edited code back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.errors import NotPython, UnreadableFile
from oomdoctor.script import notebook, read_file, read_script


def ipynb(*cells: str | tuple[str, str], **more: Any) -> bytes:
    made = []
    for cell in cells:
        kind, text = cell if isinstance(cell, tuple) else ("code", cell)
        made.append({"cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)})
        if kind == "code":
            made[-1].update(outputs=[{"output_type": "stream", "text": ["ok"]}], execution_count=1)
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more}, indent=1).encode()


CELLS = (
    ("markdown", "# Title\nsome (unbalanced text"),
    "%pip install -q diffusers \\\n    transformers\n!nvidia-smi\n%env PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
    "%%bash\nls -la\nfor i in 1 2; do echo $i; done",
    "import torch\nfrom diffusers import FluxPipeline\n%matplotlib inline\nfiles = !ls\nFluxPipeline?",
    'pipe = FluxPipeline.from_pretrained("a/b", torch_dtype=torch.bfloat16)\nif True:\n    !echo hi\npipe.to("cuda");',
    '%%time\n%time image = pipe("a cat", height=512).images[0]\nimage',
)


def test_pipelines_are_found_across_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(ipynb(*CELLS))
    file = read_file(path)
    script = file.script
    assert script.is_notebook and script.path == str(path)
    use = script.main
    assert use is not None
    assert (use.variable, use.model.value, use.dtype.value) == ("pipe", "a/b", "bfloat16")
    assert [p.device.value for p in use.placements] == ["cuda"]
    assert use.calls[0].arguments["height"].value == 512
    assert script.allocator_settings == {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    lines = file.text.split("\n")
    assert lines[use.load_span.line - 1].startswith("pipe = FluxPipeline")
    assert "pipe(" in lines[use.calls[0].span.line - 1]


def test_edits_go_back_into_their_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(ipynb(*CELLS))
    file = read_file(path)
    new = file.text.replace('pipe.to("cuda");', "pipe.enable_model_cpu_offload()\npipe.vae.enable_tiling()")
    before, after = json.loads(path.read_bytes()), json.loads(file.encode(new))
    changed = [i for i, (a, b) in enumerate(zip(before["cells"], after["cells"], strict=True)) if a != b]
    assert changed == [4]
    assert "".join(after["cells"][4]["source"]).endswith("enable_model_cpu_offload()\npipe.vae.enable_tiling()")
    assert after["cells"][4]["outputs"] == before["cells"][4]["outputs"]


def test_unchanged_code_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(ipynb(*CELLS))
    file = read_file(path)
    assert file.encode(file.text) == path.read_bytes()


PIECES = st.sampled_from([
    "%pip install x", "!ls", "x = 1", "    !ls", "%time x = f(1)", "%timeit -n 3 f(2)", "a = !ls", "b, c = %who", "?f", "f??",
    "%%time", "%%bash", "# %% [cell 0]", "# text", "", "   ", "pass  #magic: x", "if x:", "    y = 2", "%env A=b", "é = 'ü'",
])  # fmt: skip


@given(st.lists(st.lists(PIECES, max_size=8).map("\n".join), min_size=1, max_size=4))
def test_code_and_back_loses_nothing(cells: list[str]) -> None:
    data = ipynb(*cells)
    text, _ = notebook.code(data, "x")
    # Text that already looks like our own marks cannot be told apart; nothing else may change.
    if "#magic:" not in "".join(cells) and "# %% [cell" not in "".join(cells):
        assert json.loads(notebook.replace_code(data, text)) == json.loads(data)


def test_a_notebook_is_recognised_by_its_content() -> None:
    assert read_script(ipynb('from diffusers import FluxPipeline\np = FluxPipeline.from_pretrained("a")')).is_notebook
    assert not read_script("x = {'nbformat': 4, 'cell_type': 1}").is_notebook


def test_old_format_and_plain_string_sources() -> None:
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["import torch\n", "x = 1"]}]}], "nbformat": 3}
    assert read_script(json.dumps(old), path="a.ipynb").imports == {"torch": "torch"}
    new = {"cells": [{"cell_type": "code", "source": "import torch\nx = 1"}], "nbformat": 4}
    assert read_script(json.dumps(new), path="a.ipynb").imports == {"torch": "torch"}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"cells": []}', b'{"cells": 3}', b"\xff\xff", b"[" * 100_000])
def test_broken_notebooks_are_refused(data: bytes) -> None:
    with pytest.raises(UnreadableFile, match="notebook"):
        read_script(data, path="a.ipynb")


def test_a_syntax_error_names_the_cell_line() -> None:
    with pytest.raises(NotPython, match=r"a\.ipynb, cell 3 .*, line 2, column 5"):
        read_script(ipynb("x = 1", ("markdown", "text"), "z = 1\ny = = 2"), path="a.ipynb")
