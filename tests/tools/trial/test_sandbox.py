"""Each promise of the sandbox, attacked past Python's own doors. Skipped where the kernel has no sandbox, and says so."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oomdoctor.trial.sandbox import landlock, sandbox_available, why_not

pytestmark = pytest.mark.skipif(sandbox_available() is None, reason=f"no sandbox here: {why_not()}")
needs_landlock = pytest.mark.skipif(not landlock.abi(), reason="files are bubblewrap's business here")
X86 = platform.machine() == "x86_64"


Confined = Callable[..., dict[str, Any]]


@pytest.fixture
def attack(confined: Confined) -> Confined:
    """What code in a verified sandbox said."""

    def run(code: str, **policy: Any) -> dict[str, Any]:
        answer = confined(code, **policy)
        assert answer["isolation"] == "sandbox", answer
        said: dict[str, Any] = answer["said"]
        return said

    return run


@needs_landlock
def test_no_file_outside_scratch_is_touched(attack: Confined, tmp_path: Path) -> None:
    said = attack(
        """
        canary = outside + "/canary"
        raw = canary.encode()
        said["open"] = refused(lambda: os.open(canary, os.O_WRONLY))
        said["create"] = refused(lambda: os.open(outside + "/new", os.O_CREAT | os.O_RDWR))
        said["libc"] = libc.open(raw, os.O_RDWR)
        said["append"] = refused(lambda: os.open(canary, os.O_APPEND | os.O_WRONLY))
        said["empty"] = refused(lambda: os.open(canary, os.O_RDONLY | os.O_TRUNC))
        said["truncate"] = refused(lambda: os.truncate(canary, 0))
        said["unlink"] = refused(lambda: os.unlink(canary))
        said["rename out"] = refused(lambda: os.rename(canary, scratch + "/mine"))
        open(scratch + "/file", "w").write("x")
        said["rename in"] = refused(lambda: os.rename(scratch + "/file", canary))
        said["hard link"] = refused(lambda: os.link(canary, scratch + "/link"))
        os.symlink(canary, scratch + "/sym")
        said["symlink"] = refused(lambda: os.open(scratch + "/sym", os.O_WRONLY))
        said["proc root"] = refused(lambda: os.open("/proc/self/root" + canary, os.O_WRONLY))
        said["mkdir"] = refused(lambda: os.mkdir(outside + "/folder"))
        said["dotdot"] = refused(lambda: os.open(scratch + "/../outside/canary", os.O_WRONLY))
        here = os.open(outside, os.O_RDONLY | os.O_DIRECTORY)
        said["dir_fd"] = refused(lambda: os.open("canary", os.O_WRONLY, dir_fd=here))
        os.chmod(canary, 0o777); os.utime(canary, (1, 1))
        """,
    )
    assert said.pop("libc") == -1
    assert set(said.values()) <= {"EACCES", "EPERM", "EXDEV"}, said
    canary = tmp_path / "outside" / "canary"
    assert canary.read_text() == "precious"
    assert canary.stat().st_mode & 0o777 != 0o777 and canary.stat().st_mtime > 1
    assert os.listdir(tmp_path / "outside") == ["canary"]


@needs_landlock
def test_a_thread_is_confined_too(attack: Confined) -> None:
    said = attack(
        """
        import threading
        def work():
            said["write"] = refused(lambda: os.open(outside + "/canary", os.O_WRONLY))
            said["kill"] = refused(lambda: os.kill(os.getppid(), 0))
        thread = threading.Thread(target=work); thread.start(); thread.join()
        """,
    )
    assert set(said.values()) <= {"EACCES", "EPERM"} and len(said) == 2


@needs_landlock
def test_reading_is_confined_when_a_list_is_given(attack: Confined, tmp_path: Path) -> None:
    secret = tmp_path / "home" / ".ssh"
    secret.mkdir(parents=True)
    (secret / "id").write_text("key")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "helper.py").write_text("x = 1")
    code = f"""
        said["secret"] = refused(lambda: os.open({str(secret / "id")!r}, os.O_RDONLY))
        said["listing"] = refused(lambda: os.listdir({str(secret)!r}))
        said["shadow"] = refused(lambda: os.open("/etc/shadow", os.O_RDONLY))
        said["parent"] = refused(lambda: os.open(f"/proc/{{os.getppid()}}/environ", os.O_RDONLY))
        said["own"] = refused(lambda: os.open({str(tmp_path / "own" / "helper.py")!r}, os.O_RDONLY))
        import decimal, sqlite3
        """
    said = attack(code, read=(str(tmp_path / "own"),))
    assert said.pop("own") == "done"
    assert set(said.values()) <= {"EACCES", "ENOENT"}, said


def test_no_network(attack: Confined) -> None:
    said = attack(
        """
        import socket
        for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET"):
            said[family] = refused(lambda: socket.socket(getattr(socket, family), socket.SOCK_DGRAM))
        one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.send(b"hello"); assert two.recv(9) == b"hello"  # a pair may talk: asyncio needs it
        said["sendto"] = refused(lambda: one.sendto(b"x", outside + "/socket"))
        said["sendmsg"] = refused(lambda: one.sendmsg([b"x"], [], 0, outside + "/socket"))
        said["connect"] = refused(lambda: one.connect(outside + "/socket"))
        said["bind"] = refused(lambda: one.bind(scratch + "/socket"))
        """,
    )
    assert set(said.values()) == {"EPERM"}, said


def test_no_process(attack: Confined) -> None:
    said = attack(
        """
        import subprocess, multiprocessing
        said["fork"] = refused(os.fork)
        said["spawn"] = refused(lambda: os.posix_spawn("/bin/true", ["true"], {}))
        said["exec"] = refused(lambda: os.execv("/bin/true", ["true"]))
        said["popen"] = refused(lambda: subprocess.Popen(["/bin/true"]))
        said["system"] = "EPERM" if os.system("true") != 0 else "done"
        said["libc"] = "EPERM" if libc.fork() == -1 else "done"
        said["clone3"] = errno.errorcode[call(435, 0, 0)]
        import threading
        thread = threading.Thread(target=said.setdefault, args=("thread", "EPERM")); thread.start(); thread.join()
        """,
    )
    assert said.pop("clone3") == "ENOSYS"
    assert set(said.values()) == {"EPERM"} and "thread" in said, said


def test_no_other_process_is_reached(attack: Confined) -> None:
    said = attack(
        """
        import fcntl, signal
        parent = os.getppid()
        said["kill"] = refused(lambda: os.kill(parent, 0))
        said["group"] = refused(lambda: os.kill(0, 0))
        said["all"] = refused(lambda: os.kill(-1, 0))
        said["owner"] = refused(lambda: fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, parent))
        said["pidfd"] = refused(lambda: os.pidfd_open(parent))
        said["setsid"] = refused(os.setsid)
        said["setpgid"] = refused(lambda: os.setpgid(0, 0))
        said["nice"] = refused(lambda: os.setpriority(os.PRIO_PROCESS, parent, 19))
        said["cpus"] = refused(lambda: os.sched_setaffinity(parent, {0}))
        said["deathsig"] = errno.errorcode[ctypes.get_errno()] if libc.prctl(1, 0, 0, 0, 0) else "done"
        os.kill(os.getpid(), 0)  # itself it may
        """,
    )
    assert set(said.values()) == {"EPERM"}, said


@pytest.mark.skipif(not X86, reason="numbers of x86_64")
def test_doors_of_the_kernel_are_shut(attack: Confined) -> None:
    said = attack(
        """
        said["ptrace"] = call(101, 16, os.getppid(), 0, 0)
        said["vm_readv"] = call(310, os.getppid(), 0, 0, 0, 0, 0)
        said["unshare"] = call(272, 0x10000000)
        said["mount"] = call(165, 0, 0, 0, 0, 0)
        said["bpf"] = call(321, 0, 0, 0)
        said["userfaultfd"] = call(323, 0)
        said["keyctl"] = call(250, 0, 0, 0, 0, 0)
        said["shmget"] = call(29, 0, 4096, 0o1600)
        said["handle"] = call(304, 0, 0, 0)
        said["io_uring"] = call(425, 8, 0)
        said["newer"] = call(463, 0, 0, 0, 0, 0, 0)
        said["terminal"] = call(16, 0, 0x5412, 0)
        """,
    )
    import errno

    assert said.pop("io_uring") == said.pop("newer") == errno.ENOSYS
    assert said.pop("terminal") == errno.ENOTTY
    assert set(said.values()) == {errno.EPERM}, said


@pytest.mark.skipif(not X86, reason="x32 is an x86 matter")
def test_a_call_of_another_architecture_kills(confined: Confined) -> None:
    assert confined("call(0x40000000 + 39)") == {"died": signal.SIGSYS}


def test_what_is_allowed_stays_allowed(attack: Confined) -> None:
    said = attack(
        """
        import socket, subprocess
        said["socket"] = refused(lambda: socket.socket().close())
        said["process"] = subprocess.run(["/bin/echo", "hi"], capture_output=True, text=True).stdout
        """,
        allow_network=True,
        allow_processes=True,
    )
    assert said == {"socket": "done", "process": "hi\n"}


@needs_landlock
def test_a_sandbox_that_does_not_hold_is_not_called_one(confined: Confined, tmp_path: Path) -> None:
    """The canary lies where writing is allowed: the verification must notice."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "canary").write_text("precious")
    answer = confined("", canary=str(scratch))
    assert answer["isolation"] == "guards"
    assert "no file outside scratch is" in answer["missing"]


def test_a_process_with_threads_is_not_called_confined(confined: Confined) -> None:
    code = """
        import threading, time
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        again = enter(Policy(scratch=scratch, canary=outside))
        said["name"], said["missing"] = again.name, again.missing
        """
    answer = confined(code, mode="guards")
    assert answer["isolation"] == "guards" and answer["said"]["name"] == "guards"
    assert "2 threads" in answer["said"]["missing"]
