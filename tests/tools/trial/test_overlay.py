"""Guards against accidents, each in a process of its own: what a script writes, removes, starts and calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOOLS = str(Path(__file__).parents[3] / "tools")

Guarded = Callable[[str], dict[str, Any]]


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    """Run code below ``tmp_path/work`` behind the guards; it fills ``said``."""
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    work.mkdir()
    scratch.mkdir()

    def run(code: str) -> dict[str, Any]:
        program = (
            f"import json, os, sys; sys.path.insert(0, {TOOLS!r})\n"
            f"from oomdoctor.trial import guards\nscratch = {str(scratch)!r}\n"
            "g = guards.install(scratch)\nsaid = {}\n" + textwrap.dedent(code) + "\n"
            "print(json.dumps({**said, 'files': g.files(), 'notes': g.notes()}))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=work, timeout=60)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    return run


def test_writes_go_to_scratch_and_are_found_again(guarded: Guarded, tmp_path: Path) -> None:
    said = guarded("""
        import glob, pathlib, shutil
        os.makedirs("out/deep", exist_ok=True)
        os.makedirs("out/deep", exist_ok=True)
        with open("out/a.txt", "w") as f: f.write("hello")
        with open("out/a.txt", "a") as f: f.write(" world")
        pathlib.Path("out/b.txt").write_text("b")
        descriptor = os.open("out/c.bin", os.O_CREAT | os.O_WRONLY); os.write(descriptor, b"12345"); os.close(descriptor)
        shutil.copy2("out/a.txt", "out/copy.txt")
        shutil.move("out/b.txt", "out/moved.txt")
        said["text"] = open("out/a.txt").read()
        said["names"] = sorted(os.listdir("out"))
        said["glob"] = sorted(glob.glob("out/*.txt"))
        said["exists"] = [os.path.isdir("out/deep"), os.path.isfile("out/copy.txt"), os.path.exists("out/b.txt")]
        """)
    assert said["text"] == "hello world"
    assert said["names"] == ["a.txt", "c.bin", "copy.txt", "deep", "moved.txt"]
    assert said["glob"] == ["out/a.txt", "out/copy.txt", "out/moved.txt"]
    assert said["exists"] == [True, True, False]
    assert {"path": "out/c.bin", "what": "file", "bytes": 5, "kept": True} in said["files"]
    assert os.listdir(tmp_path / "work") == []


def test_existing_files_stay_as_they_are(guarded: Guarded, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "old").mkdir()
    for name in ("a", "b", "c", "d"):
        (work / "old" / name).write_text(name)
    said = guarded("""
        import pathlib, shutil
        open("old/a", "w").write("changed")
        open("old/b", "r+").write("X")
        os.remove("old/c"); pathlib.Path("old/c").unlink(); os.rename("old/d", "old/e"); os.chmod("old/d", 0o777)
        said["read"] = [open("old/a").read(), open("old/b").read(), open("old/e").read()]
        said["names"] = sorted(os.listdir("old"))
        said["scan"] = sorted(entry.name for entry in os.scandir("old"))
        shutil.rmtree("old")
        try: os.remove("old/never")
        except FileNotFoundError: said["missing"] = True
        try: open("nowhere/x", "w")
        except FileNotFoundError: said["folder"] = True
        try: open("old/c", "x")
        except FileExistsError: said["exclusive"] = True
        """)
    assert said["read"] == ["changed", "X", "d"]
    assert said["names"] == said["scan"] == ["a", "b", "c", "d", "e"]
    assert said["missing"] and said["folder"] and said["exclusive"]
    assert {p.name: p.read_text() for p in (work / "old").iterdir()} == {n: n for n in "abcd"}
    assert (work / "old" / "d").stat().st_mode & 0o777 != 0o777
    assert any("not removed, renamed or changed" in note for note in said["notes"])


def test_temporary_files_work(guarded: Guarded) -> None:
    said = guarded("""
        import tempfile
        with tempfile.NamedTemporaryFile("w+", suffix=".png") as f: f.write("x"); said["inside"] = f.name.startswith(scratch)
        with tempfile.TemporaryDirectory() as d: open(os.path.join(d, "y"), "w").write("y")
        said["gone"] = not os.path.exists(d)
        """)
    assert said["inside"] and said["gone"]


def test_no_process_is_started(guarded: Guarded) -> None:
    said = guarded("""
        import multiprocessing, subprocess
        def attempt(f):
            try: f()
            except PermissionError as error: return str(error)
            return "done"
        said["all"] = [attempt(f) for f in (
            lambda: subprocess.run(["true"]), lambda: os.system("true"), lambda: os.popen("true"), os.fork,
            lambda: os.execvp("true", ["true"]), lambda: os.posix_spawn("/bin/true", ["true"], {}),
            lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
            lambda: multiprocessing.get_context("fork").Process(target=print).start())]
        """)
    assert all("starts no other process" in text for text in said["all"]), said["all"]


def test_nobody_is_called(guarded: Guarded) -> None:
    said = guarded("""
        import asyncio, socket, urllib.request
        def attempt(f):
            try: f()
            except OSError as error: return str(error)
            return "done"
        said["all"] = [attempt(f) for f in (
            lambda: urllib.request.urlopen("http://127.0.0.1:9/"), lambda: socket.create_connection(("127.0.0.1", 9)),
            lambda: socket.socket().connect(("127.0.0.1", 9)), lambda: socket.getaddrinfo("localhost", 80),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)))]
        async def nothing(): return 1
        said["asyncio"] = asyncio.run(nothing())
        """)
    assert all("has no network" in text for text in said["all"]), said["all"]
    assert said["asyncio"] == 1


def test_what_guards_do_not_hold_is_what_the_sandbox_is_for(guarded: Guarded, tmp_path: Path) -> None:
    """Stated in SECURITY.md: code that goes past Python's doors is not stopped by guards."""
    target = tmp_path / "work" / "escaped"
    guarded(f"""
        import ctypes
        libc = ctypes.CDLL(None)
        said["fd"] = libc.creat({str(target)!r}.encode(), 0o600)
        """)
    assert target.exists()
    security = Path(__file__).parents[3] / "SECURITY.md"
    assert "ctypes" in security.read_text()


def test_pictures_and_sound_are_reported_not_written(guarded: Guarded, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    said = guarded("""
        import wave
        from PIL import Image
        picture = Image.new("RGB", (64, 32))
        picture.save("cat.png")
        for i in range(300): picture.save(f"frame{i}.png")
        """)
    first = said["files"][0]
    assert first == {"path": "cat.png", "what": "picture 64x32 RGB", "bytes": 64 * 32 * 3, "kept": False}
    assert len(said["files"]) == 200
    assert os.listdir(tmp_path / "work") == []
