"""A second measurement is printed as it was the first time, unless something that it rests on has changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from oomdoctor import again
from oomdoctor.trial import cache

ROOT = Path(__file__).resolve().parents[3]
ARGUMENTS = ["measure", "script.py"]
CALL = 'from diffusers import DiffusionPipeline\npipe = DiffusionPipeline.from_pretrained("me/model")\n'


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a script and a model, and a cache of its own."""
    monkeypatch.setenv("OOM_DOCTOR_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(CALL)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path


def test_the_same_question_is_answered_as_before(desk: Path) -> None:
    assert again.answer(ARGUMENTS) is None
    again.keep(ARGUMENTS, "what was printed", [desk / "model"])
    assert again.answer(ARGUMENTS) == "what was printed"
    assert again.answer([*ARGUMENTS, "--progress", "--parent-watch"]) == "what was printed"
    (desk / "copy.py").write_text(CALL)
    assert again.answer(["measure", "copy.py"]) == "what was printed"  # the content counts, not the name
    assert again.answer([*ARGUMENTS, "--json"]) is None
    assert again.answer(["measure", "-"]) is None


def test_what_it_rests_on_voids_it(desk: Path) -> None:
    def changed(change: object) -> None:
        again.keep(ARGUMENTS, "text", [desk / "model", desk / "absent"])
        assert again.answer(ARGUMENTS) == "text"
        change()  # type: ignore[operator]
        assert again.answer(ARGUMENTS) is None

    changed(lambda: (desk / "model" / "config.json").write_text('{"more": 1}'))
    changed(lambda: (desk / "model" / "weights.safetensors").write_bytes(b"x"))
    changed(lambda: (desk / "absent").mkdir())
    changed(lambda: (desk / "script.py").write_text("another = 1\n"))


def test_environment_folder_and_switch(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again.keep(ARGUMENTS, "text", [])
    with monkeypatch.context() as patch:
        patch.setenv("HF_HOME", str(desk / "elsewhere"))
        assert again.answer(ARGUMENTS) is None
    with monkeypatch.context() as patch:
        patch.chdir(desk / "model")
        assert again.answer(["measure", "../script.py"]) is None  # paths in the script mean other files there
    assert again.answer(ARGUMENTS) == "text"
    monkeypatch.setenv("OOM_DOCTOR_CACHE", "")
    assert again.answer(ARGUMENTS) is None
    again.keep(ARGUMENTS, "text", [])


def test_libraries_count_by_their_names(desk: Path) -> None:
    libraries = desk / "site-packages"
    (libraries / "torch-2.13.0.dist-info").mkdir(parents=True)
    again.keep(ARGUMENTS, "text", [libraries])
    assert again.answer(ARGUMENTS) == "text"
    (libraries / "torch-2.13.0.dist-info").rename(libraries / "torch-2.14.0.dist-info")
    assert again.answer(ARGUMENTS) is None


def test_a_broken_answer_is_none(desk: Path) -> None:
    again.keep(ARGUMENTS, "text", [])
    for file in (desk / "kept" / "answers").glob("*.gz"):
        file.write_bytes(b"nothing of the kind")
    assert again.answer(ARGUMENTS) is None


def test_places_of_a_call(desk: Path) -> None:
    found = cache.places(CALL, ["configs"], {"me/model": "org/known"})
    assert Path("configs") in found
    assert desk / "hub" / "models--me--model" in found and desk / "hub" / "models--org--known" in found
    assert any(place.name == "site-packages" for place in found)


def test_a_kept_answer_needs_none_of_our_libraries(desk: Path) -> None:
    again.keep([*ARGUMENTS, "--json"], json.dumps({"components": []}), [])
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); from oomdoctor.cli import main; status = main(['measure', 'script.py', '--json']);"
        "heavy = {'pydantic', 'torch', 'libcst', 'psutil'} & set(sys.modules); print(status, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ['{"components": []}', "0 []"]
