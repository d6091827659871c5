"""Input that is broken, huge, deep or strange: a clear error or a Script, never a crash."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from oomdoctor.errors import NotPython, UnreadableFile
from oomdoctor.script import read_file, read_script

N = 10_000
LOAD = 'from diffusers import FluxPipeline\npipe = FluxPipeline.from_pretrained("a/b")\n'


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "(" * N + "1" + ")" * N,
        "[" * N + "]" * N,
        "x = " + "-" * N + "1",
        "x = " + "not " * N + "1",
        "x = a" + ".b()" * N,
        "x = a" + "[0]" * N,
        "x = " + "lambda: " * N + "1",
        "x = " + "1 if 1 else " * N + "1",
        "x = " + "**".join(["1"] * N),
        "x = " + "+".join(["a"] * N),
        "if x:\n pass\n" + "elif y:\n pass\n" * N,
        "".join(" " * i + "if 1:\n" for i in range(500)) + " " * 500 + "pass\n",
    ],
    ids=lambda t: t[:12].strip() + "...",
)
def test_ten_thousand_deep_is_refused_in_clear_words(text: str) -> None:
    try:
        read_script(text)
    except NotPython as error:
        assert re.search(r"nested|too many|deeply", str(error))
        assert "and over" in str(error)  # it says what to hand over instead
    else:
        assert sys.version_info < (3, 11), "older parsers take chains of any length"


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "'a' " * N,
        "x = f'" + "{a}" * N + "'",
        "x = " + " and ".join(["a"] * N),
        "x = " + "+".join(["a"] * 300),
        "x = [" + "1," * N + "]",
        "x = a" + ".b()" * 60,
        "if x:\n pass\n" + "elif y:\n pass\n" * 100,
        "".join(" " * i + f"def f{i}():\n" for i in range(95)) + " " * 95 + "pass\n",
    ],
    ids=lambda t: t[:12].strip() + "...",
)
def test_long_is_not_deep(text: str) -> None:
    script = read_script(LOAD + text + '\npipe("x")\n')
    assert script.main is not None and len(script.main.calls) == 1


def test_deep_expressions_that_parse_are_skipped_not_fatal() -> None:
    script = read_script(LOAD + "x = a" + ".b()" * 900 + '\npipe("x")\n')
    assert script.main is not None and len(script.main.calls) == 1


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("x = 1\ny = = 2\n", 2, 5), ("def f(:\n", 1, 7), ("if 1:\n\tx = 1\n        y = 2\n", 3, 1)],
)
def test_syntax_errors_have_line_and_column(text: str, line: int, column: int) -> None:
    with pytest.raises(NotPython, match=rf"cat\.py, line {line}, column {column}"):
        read_script(text, path="cat.py")


@pytest.mark.parametrize("text", ['print "hello"\n', "try:\n  pass\nexcept A, b:\n  pass\n"])
def test_python_2_is_named(text: str) -> None:
    with pytest.raises(NotPython, match="Python 2"):
        read_script(text)


def test_a_copied_console_session_and_loose_magics_are_named() -> None:
    with pytest.raises(NotPython, match=">>>"):
        read_script(">>> import torch\n>>> x = 1\n")
    with pytest.raises(NotPython, match="notebook"):
        read_script("!pip install diffusers\nimport torch\n")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "\ufeff", "pass"])
def test_nothing_is_an_empty_script(text: str) -> None:
    script = read_script(text)
    assert script.pipelines == () and script.main is None
    assert any("no diffusers pipeline" in warning for warning in script.warnings)


def test_line_ends_and_byte_order_marks_do_not_shift_spans() -> None:
    for text in (LOAD.replace("\n", "\r\n"), LOAD.replace("\n", "\r"), "\ufeff" + LOAD, "\x0c" + LOAD):
        use = read_script(text).main
        assert use is not None and use.load_span.line == 2
        assert (use.load_span.column, use.load_span.end_column) == (7, 42)


def test_columns_count_characters_not_bytes() -> None:
    text = 'from diffusers import FluxPipeline\nä = "日本"; pipe = FluxPipeline.from_pretrained("é/ö").to("cuda")\n'
    use = read_script(text).main
    assert use is not None
    line = text.split("\n")[1]
    assert line[use.load_span.column : use.load_span.end_column] == 'FluxPipeline.from_pretrained("é/ö")'
    placed = use.placements[0].span
    assert line[placed.column : placed.end_column] == 'FluxPipeline.from_pretrained("é/ö").to("cuda")'


def test_encoding_cookies_are_obeyed_and_written_back(tmp_path: Path) -> None:
    path = tmp_path / "latin.py"
    data = ("# -*- coding: latin-1 -*-\n" + LOAD + 'prompt = "Käse"\npipe(prompt)\n').encode("latin-1")
    path.write_bytes(data)
    file = read_file(path)
    assert file.script.main is not None
    assert file.script.main.calls[0].positional[0].value == "Käse"
    assert file.encode(file.text) == data
    with pytest.raises(UnreadableFile, match="latin|iso-8859"):
        file.encode(file.text + "# 日本\n")


def test_a_byte_order_mark_survives(tmp_path: Path) -> None:
    path = tmp_path / "bom.py"
    path.write_bytes(b"\xef\xbb\xbf" + LOAD.replace("\n", "\r\n").encode())
    file = read_file(path)
    assert not file.text.startswith("\ufeff")
    assert file.encode(file.text) == path.read_bytes()


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe\x00a", b"# coding: nonsense\nx=1\n", b"\x89PNG\r\n\x1a\n\x00", b"x = '\xff'\n", "x=1".encode("utf-16")],
)
def test_bytes_that_are_not_text(data: bytes) -> None:
    with pytest.raises((UnreadableFile, NotPython)) as caught:
        read_script(data)
    assert len(str(caught.value)) > 30


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="folder"):
        read_file(tmp_path)
    with pytest.raises(UnreadableFile, match="does not exist"):
        read_file(tmp_path / "absent.py")
    with pytest.raises(UnreadableFile):
        read_file("nul\0l.py")
    with pytest.raises(UnreadableFile, match="characters"):
        read_script("x = 1\n" * 1_000_000)


def test_a_megabyte_is_read_in_time() -> None:
    text = LOAD + "".join(f'pipe("{"a long prompt " * 12}{i}", height=512)\n' for i in range(5_000))
    assert len(text) > 900_000
    script = read_script(text)
    assert script.main is not None and len(script.main.calls) == 5_000


def test_time_is_linear() -> None:
    block = 'p{n} = FluxPipeline.from_pretrained("a/b")\nif x{n}:\n    p{n}.to("cuda")\ndef f{n}(a): return p{n}(a)\nf{n}("b")\n'

    def seconds(blocks: int) -> float:
        text = LOAD + "".join(block.format(n=n) for n in range(blocks))
        return min(_timed(lambda: read_script(text)) for _ in range(2))

    small, large = seconds(100), seconds(800)
    assert large < 8 * small * 2.5


def _timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.parametrize(
    "text",
    [
        "x = []\nx.append(x)\nx = [x, x]\ny = {'a': x}\ny['b'] = y\npipe(x, **y)\nfor q in x: pass\n",
        "class A(A): pass\nA().x\nclass B: pass\nB = B()\nB()()\n",
        "def f(): return f()\nf()\ndef g(n): return h(n)\ndef h(n): return g(n)\ng(1)\n",
        "".join(f"def f{i}(a): return f{i + 1}(a) + f{i + 1}(a)\n" for i in range(200)) + "f0(1)\n",
        "x = [1, 2, 3]\n" + "x = x + x\n" * 60 + "pipe(prompt=x)\n",
        "y = 'a' * 1000\n" + "y = y + y\n" * 60 + "pipe(y)\n",
        "z = 10 ** 10 ** 10\nz = 1 << 10 ** 9\nw = '%1000000000d' % 1\nv = '{:>99999999999}'.format(1)\n",
        "k = [[1] * 1000] * 1000\nk = [k] * 1000\npipe(prompt=k, **{'a': k})\n",
    ],
    ids=[
        "cycles",
        "classes",
        "recursion",
        "doubling calls",
        "doubling lists",
        "doubling text",
        "bombs",
        "nested lists",
    ],
)
def test_nothing_grows_without_bound(text: str) -> None:
    assert _timed(lambda: read_script(LOAD + text)) < 3


@pytest.mark.parametrize(
    "text",
    [
        "from sklearn.pipeline import Pipeline\npipe = Pipeline([('a', 1)])\npipe.to('cuda')\npipe('x')\n",
        "from transformers import pipeline\npipe = pipeline('text-generation', device='cuda')\npipe('x')\n",
        "from transformers import TextGenerationPipeline\npipe = TextGenerationPipeline(model=m)\npipe('x')\n",
        "import subprocess\npipe = subprocess.PIPE\npipe.to('cuda')\npipe.enable_model_cpu_offload()\n",
        "pipe = open('/dev/null')\npipe.read()\nfor pipe in range(3):\n    pipe(1)\n",
        "def pipe(x):\n    return x\npipe('cuda').to('cuda')\n",
    ],
)
def test_a_pipe_that_is_something_else(text: str) -> None:
    assert read_script(text).pipelines == ()


def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    read_script('import os\nopen("made", "w").write("x")\nos.mkdir("folder")\n__import__("os").mkdir("b")\n' + LOAD)
    assert list(tmp_path.iterdir()) == []
