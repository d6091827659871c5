"""Files: each rule of SECURITY.md about paths, with somebody who tries to break it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.types import ElicitResult
from oomdoctor.errors import InputError, OomDoctorError, OutsideRoots, UnreadableFile, WouldOverwrite
from oomdoctor_mcp.config import default_roots, from_argv
from oomdoctor_mcp.confine import Roots

SECRET = "token = 'hunter2'\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A neighbour whose name begins like the root's, with something worth reading."""
    folder = tmp_path / "project-private"
    folder.mkdir()
    (folder / "secret.py").write_text(SECRET)
    return folder


@pytest.fixture
def roots(root: Path) -> Roots:
    return Roots((root.resolve(),))


def read(roots: Roots, path: str | Path) -> bytes:
    return roots.read(str(path), suffixes=(".py",), max_bytes=1000)[1]


# -- reading ---------------------------------------------------------------------------------------------------------


def test_files_inside_are_read_by_absolute_and_relative_path(roots: Roots, root: Path, script: str):
    assert read(roots, "flux.py") == read(roots, root / "flux.py") == read(roots, "./x/../flux.py") == script.encode()


@pytest.mark.parametrize(
    "way", ["{outside}/secret.py", "../project-private/secret.py", "x/../../project-private/secret.py", "~/secret.py",
            "/etc/passwd", "/proc/self/environ", "//etc/passwd"],
)  # fmt: skip
def test_nothing_outside_is_read(roots: Roots, outside: Path, way: str):
    with pytest.raises(OutsideRoots) as caught:
        read(roots, way.format(outside=outside))
    assert "hunter2" not in str(caught.value)


def test_what_is_outside_cannot_be_told_from_what_is_not_there(roots: Roots, outside: Path):
    """Otherwise the messages would say which files a person has."""

    def words(path: Path) -> str:
        with pytest.raises(OutsideRoots) as caught:
            read(roots, path)
        return str(caught.value).replace(str(path), "X")

    assert words(outside / "secret.py") == words(outside / "no-such-file.py") == words(Path("/no/such/folder/a.py"))


@pytest.mark.parametrize("kind", ["file", "folder", "chain", "loop"])
def test_symlinks_do_not_lead_out(roots: Roots, root: Path, outside: Path, kind: str):
    if kind == "file":
        (root / "link.py").symlink_to(outside / "secret.py")
    elif kind == "folder":
        (root / "link").symlink_to(outside)
    elif kind == "chain":
        (root / "hop").symlink_to("../project-private")
        (root / "link.py").symlink_to("hop/secret.py")
    else:
        (root / "link.py").symlink_to(root / "link.py")
    with pytest.raises(OutsideRoots):
        read(roots, "link/secret.py" if kind == "folder" else "link.py")


def test_symlinks_that_stay_inside_are_fine(roots: Roots, root: Path, script: str):
    (root / "same.py").symlink_to("flux.py")
    assert read(roots, "same.py") == script.encode()


@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_a_symlink_put_there_after_the_check_does_not_lead_out(
    roots: Roots, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
):
    (root / "sub").mkdir()
    (root / "sub" / "secret.py").write_text("harmless")
    check = Roots.find

    def find_then_swap(self: Roots, text: str) -> Path:
        found = check(self, text)
        if swapped == "file":
            found.unlink()
            found.symlink_to(outside / "secret.py")
        else:
            shutil.rmtree(root / "sub")
            (root / "sub").symlink_to(outside)
        return found

    monkeypatch.setattr(Roots, "find", find_then_swap)
    with pytest.raises(UnreadableFile) as caught:
        read(roots, "sub/secret.py")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "fifo", "large", "suffix", "empty", "null"])
def test_only_regular_files_of_the_right_kind_and_size(roots: Roots, root: Path, kind: str):
    path: str | Path = root / "odd.py"
    if kind == "folder":
        (root / "odd.py").mkdir()
    elif kind == "fifo":
        os.mkfifo(root / "odd.py")  # must not block either
    elif kind == "large":
        (root / "odd.py").write_bytes(b"#" * 1001)
    elif kind == "suffix":
        path = root / ".env"
        (root / ".env").write_text(SECRET)
    else:
        path = {"empty": " ", "null": "a\x00.py"}[kind]
    with pytest.raises(InputError) as caught:
        read(roots, path)
    assert "hunter2" not in str(caught.value)


def test_without_a_root_nothing_is_read(root: Path):
    with pytest.raises(OutsideRoots, match="as text"):
        read(Roots(()), root / "flux.py")


@given(st.text(max_size=60) | st.lists(st.sampled_from(["..", ".", "a", "~", "/", "\\", "%2e%2e", "-x"])).map("/".join))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_names_a_file_outside(roots: Roots, root: Path, text: str):
    try:
        path = roots.find(text)
    except InputError:
        return
    assert path.is_relative_to(root.resolve())


def test_a_home_folder_is_not_a_root_by_accident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_roots(tmp_path) == () == default_roots(Path("/"))
    monkeypatch.chdir(tmp_path)
    assert from_argv([]).roots == ()
    assert from_argv(["--root", str(tmp_path)]).roots == (tmp_path.resolve(),), "unless somebody says so"


# -- writing ---------------------------------------------------------------------------------------------------------


def test_a_new_file_is_written_and_an_old_one_is_not(roots: Roots, root: Path, script: str):
    new = roots.target("new.py")
    assert roots.write(new, b"x", replace=False) is None and new.read_bytes() == b"x"
    with pytest.raises(WouldOverwrite):
        roots.write(roots.target("flux.py"), b"x", replace=False)
    assert (root / "flux.py").read_text() == script


def test_what_is_replaced_is_kept_with_its_mode(roots: Roots, root: Path, script: str):
    (root / "flux.py").chmod(0o750)
    first = roots.write(roots.target("flux.py"), b"1", replace=True)
    second = roots.write(roots.target("flux.py"), b"2", replace=True)
    assert first and first.read_text() == script
    assert second and second.read_bytes() == b"1"
    assert (root / "flux.py").read_bytes() == b"2" and (root / "flux.py").stat().st_mode & 0o777 == 0o750
    assert sorted(p.name for p in root.iterdir()) == ["flux.py", "flux.py.bak", "flux.py.bak1"]


@pytest.mark.parametrize(
    "way", ["../out.py", "{outside}/out.py", "link.py", "link/out.py", "dangling.py", "no/such/folder.py", "out.sh",
            ".bashrc", "sub"],
)  # fmt: skip
def test_nothing_else_is_written_to(roots: Roots, root: Path, outside: Path, way: str):
    (root / "sub").mkdir()
    (root / "link.py").symlink_to(outside / "secret.py")
    (root / "link").symlink_to(outside)
    (root / "dangling.py").symlink_to(outside / "out.py")
    with pytest.raises(InputError):
        roots.write(roots.target(way.format(outside=outside)), b"x", replace=True)
    assert [p.name for p in outside.iterdir()] == ["secret.py"]
    assert (outside / "secret.py").read_text() == SECRET


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_a_symlink_put_there_before_the_write_is_not_followed(
    roots: Roots, root: Path, outside: Path, replace: bool, swapped: str
):
    (root / "sub").mkdir()
    target = roots.target("sub/secret.py")
    if swapped == "file":
        target.symlink_to(outside / "secret.py")
    else:
        (root / "sub").rmdir()
        (root / "sub").symlink_to(outside)
    with pytest.raises((OSError, OomDoctorError)):
        roots.write(target, b"x", replace=replace)
    assert (outside / "secret.py").read_text() == SECRET
    assert [p.name for p in outside.iterdir()] == ["secret.py"]


def test_a_hard_link_is_replaced_and_not_written_through(roots: Roots, root: Path, outside: Path):
    os.link(outside / "secret.py", root / "hard.py")
    roots.write(roots.target("hard.py"), b"x", replace=True)
    assert (outside / "secret.py").read_text() == SECRET


# -- writing through the tool ----------------------------------------------------------------------------------------

REWRITE = {"script_path": "flux.py", "strategy": "model_offload", "output_path": "flux.py"}


@pytest.mark.anyio
async def test_a_client_that_cannot_ask_cannot_replace(serve: Any, connect: Any, root: Path, script: str):
    async with connect(serve()) as client:
        answer = await client.call_tool("rewrite_script", REWRITE)
    assert answer.is_error and "new name" in answer.content[0].text
    assert (root / "flux.py").read_text() == script


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("action", "agrees"), [("accept", True), ("accept", False), ("decline", None), ("cancel", None)]
)
async def test_the_person_decides_whether_a_file_is_replaced(
    serve: Any, connect: Any, root: Path, script: str, action: str, agrees: bool | None
):
    asked: list[str] = []

    async def person(context: Any, question: Any) -> ElicitResult:
        asked.append(question.message)
        return ElicitResult(action=action, content=None if agrees is None else {"replace": agrees})

    async with connect(serve(), elicitation_callback=person) as client:
        new = await client.call_tool("rewrite_script", REWRITE | {"output_path": "new.py"})
        assert not asked and not new.is_error, "a new file needs no question"
        answer = await client.call_tool("rewrite_script", REWRITE)
    assert len(asked) == 1 and str(root / "flux.py") in asked[0]
    assert answer.is_error is not bool(agrees)
    if agrees:
        assert "enable_model_cpu_offload" in (root / "flux.py").read_text()
        assert (root / "flux.py.bak").read_text() == script
    else:
        assert (root / "flux.py").read_text() == script and not (root / "flux.py.bak").exists()


@pytest.mark.anyio
@pytest.mark.parametrize("extra", [{"answer": {"replace": True}}, {"overwrite": True}, {"replace": True}])
async def test_the_model_cannot_answer_for_the_person(
    serve: Any, connect: Any, root: Path, script: str, extra: dict[str, Any]
):
    async with connect(serve()) as client:
        assert (await client.call_tool("rewrite_script", REWRITE | extra)).is_error
    assert (root / "flux.py").read_text() == script


@pytest.mark.anyio
async def test_no_tool_but_rewrite_writes(serve: Any, connect: Any, root: Path, script: str, traceback: str):
    before = {p: p.read_bytes() for p in root.rglob("*")}
    async with connect(serve()) as client:
        for tool in ("fix_oom", "measure_components", "compute_strategies", "verify_script"):
            await client.call_tool(tool, {"script_path": "flux.py"})
        await client.call_tool("diagnose_oom", {"traceback": traceback, "script_path": "flux.py"})
        await client.call_tool("rewrite_script", {"script_path": "flux.py", "strategy": "model_offload"})
    assert {p: p.read_bytes() for p in root.rglob("*")} == before
